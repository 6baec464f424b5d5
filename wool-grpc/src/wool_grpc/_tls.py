"""Credentials as gRPC takes them."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from wool.abc import ConnectFailed, Pem, Tls
from wool_grpc._addresses import Address
from wool_grpc._library import grpc

_CURVES = ("secp256r1", "secp384r1")
"""The elliptic curves that gRPC takes; besides, it takes RSA."""


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
        with contextlib.suppress(
            Exception
        ):  # else the files are being replaced: what was good stays
            pem = tls.server_pem()
        return _configuration(pem) if pem != shown or tls.asks_client else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(pem), changed, require_client_authentication=tls.asks_client
    )


def _configuration(pem: Pem) -> Any:
    pair = (pem.key, pem.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=pem.authorities)


def channel_credentials(tls: Tls, certificate: bytes, place: Address) -> tuple[Any, str]:
    """Returns what gRPC dials with, and the name that it verifies.

    Args:
        certificate: DER, the one that was seen at `place`. Unless `tls` says whom to trust, it is
            the only one that will do, so that gRPC insists on its key.
    """
    pem = tls.client_pem()
    if tls.verify:
        authorities = pem.authorities or _system_authorities(tls)
        name = expected_name(tls, place)
    else:
        authorities = ssl.DER_cert_to_PEM_cert(certificate).encode()
        name = _name_in(certificate, place)
    return grpc.ssl_channel_credentials(authorities, pem.key, pem.certificate), name


def _system_authorities(tls: Tls) -> bytes | None:
    trusted = tls.client_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None


def expected_name(tls: Tls, place: Address) -> str:
    """Returns the name that the certificate of whoever listens at `place` has to be made out to.

    No certificate has the interface that a link-local address names, which is one of this machine,
    or the dot that says that a name is complete.
    """
    return (tls.server_name or place.host).partition("%")[0].rstrip(".") or "localhost"


def odd_key(certificate: bytes) -> str:
    """Returns the kind of key of a certificate (PEM or DER) if gRPC does not take it, else ""."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    pem = b"-----BEGIN" in certificate
    load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
    try:
        key = load(certificate).public_key()
    except ValueError:
        return ""
    if isinstance(key, rsa.RSAPublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.name in _CURVES else key.curve.name
    return type(key).__name__.removesuffix("PublicKey")


def _name_in(certificate: bytes, place: Address) -> str:
    """Returns a name that the certificate (DER) is made out to.

    Raises:
        ConnectFailed: there is none.
    """
    from cryptography import x509

    parsed = x509.load_der_x509_certificate(certificate)
    found: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += names.get_values_for_type(x509.DNSName)
        found += map(str, names.get_values_for_type(x509.IPAddress))
    if not found:
        common = parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found += (str(name.value) for name in common)
    if not found:
        raise ConnectFailed(f"{place.text}: its certificate is made out to no name", reason="tls")
    return found[0].replace("*", "any", 1)
