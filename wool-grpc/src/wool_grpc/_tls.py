"""Credentials as gRPC takes them."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from wool.abc import Pem, Tls
from wool_grpc._addresses import Address
from wool_grpc._library import grpc


def server_credentials(tls: Tls) -> Any:
    """Returns what a server listens with; replaced files take effect on the next connection."""
    pem = tls.server_pem()

    def changed() -> Any:
        """Returns a new configuration or None; called for each connection, in threads of gRPC.

        Where certificates are demanded it is always a new one: sessions can be resumed with the
        same one only, and whoever resumes one shows no certificate that may have expired.
        """
        nonlocal pem
        shown = pem
        with contextlib.suppress(Exception):  # files are being replaced: what was good stays
            pem = tls.server_pem()
        return _configuration(pem) if pem != shown or tls.asks_client else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(pem), changed, require_client_authentication=tls.asks_client
    )


def _configuration(pem: Pem) -> Any:
    pair = (pem.key, pem.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=pem.authorities)


def channel_credentials(tls: Tls, certificate: bytes) -> Any:
    """Returns what gRPC dials with.

    Args:
        certificate: DER, the one that was seen. Unless `tls` says whom to trust, it is the only one
            that will do, so that gRPC insists on its key.
    """
    pem = tls.client_pem()
    if tls.verify:
        authorities = pem.authorities or _system_authorities(tls)
    else:
        authorities = ssl.DER_cert_to_PEM_cert(certificate).encode()
    return grpc.ssl_channel_credentials(authorities, pem.key, pem.certificate)


def _system_authorities(tls: Tls) -> bytes | None:
    trusted = tls.client_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None


def expected_name(tls: Tls, place: Address) -> str:
    """Returns the name that the certificate of whoever listens at `place` has to be made out to.

    No certificate has the interface that a link-local address names, which is one of this machine,
    or the dot that says that a name is complete.
    """
    return (tls.server_name or place.host).partition("%")[0].rstrip(".") or "localhost"


def name_in(certificate: bytes) -> str:
    """Returns a host name that a certificate (DER) is made out to; empty if there is none."""
    from cryptography import x509

    extensions = x509.load_der_x509_certificate(certificate).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0].replace("*", "any", 1)
    except (x509.ExtensionNotFound, IndexError):
        return ""
