"""Certificates: the throw-away one of a worker, and a small authority for mutual TLS.

The library `cryptography` comes with the extra `tls`, which the packages of the network transports
require. Importing this module imports it, so that is for the moment when a certificate is made.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wool._security.tls import THROWAWAY
from wool.abc import Pem
from wool.exceptions import ConfigurationError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID
except ImportError:
    raise ConfigurationError(
        'making certificates needs the package cryptography: pip install "wool-core[tls]"'
    ) from None

_FILE = re.compile(r"(?!-)[\w.@ -]{0,63}[\w@]")
"""Names of files, and of the holders of certificates."""

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")

# A throw-away certificate lives as long as its worker, so clocks that differ must not matter.
_ALWAYS = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


def throwaway() -> Pem:
    """Makes a self-signed certificate that nobody has seen before."""
    return _issue(THROWAWAY, _ALWAYS, names=[x509.DNSName(THROWAWAY)])


def make_authority(folder: Path, days: int) -> None:
    """Writes `ca.pem` and `ca-key.pem` into `folder`; the latter for its user alone.

    Raises:
        ConfigurationError: there is one already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"Wool authority {os.urandom(4).hex()}"
    _save(folder, "ca", _issue(name, _span(days), authority=True))


def make_certificate(folder: Path, name: str, hosts: Sequence[str], days: int) -> None:
    """Writes `<name>.pem` and `<name>-key.pem`, signed by the authority in `folder`.

    Args:
        name: of the files and in the certificate, at most 64 characters.
        hosts: host names and addresses that the certificate is good for.

    Raises:
        ConfigurationError: there is no usable authority, a certificate of that name already, or an
            argument is of no use.
    """
    if not _FILE.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a file and of a certificate")
    try:
        issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()).subject
        key: Any = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder} has no usable authority (ca.pem, ca-key.pem): {error}. Make one with "
            "`wool certs authority`"
        ) from None
    names = [_general_name(host) for host in hosts]
    _save(folder, name, _issue(name, _span(days), names=names, issuer=issuer, issuer_key=key))


def _span(days: int) -> tuple[dt.datetime, dt.datetime]:
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    return min(now, end) - dt.timedelta(hours=1), end


def _issue(
    name: str,
    span: tuple[dt.datetime, dt.datetime],
    *,
    names: Sequence[x509.GeneralName] = (),
    authority: bool = False,
    issuer: x509.Name | None = None,
    issuer_key: ec.EllipticCurvePrivateKey | None = None,
) -> Pem:
    """Makes a certificate as RFC 5280 wants it, for both ends of TLS, and its key.

    Args:
        issuer, issuer_key: the authority that signs it; None: it signs itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signing = issuer_key or key
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer, critical=False)
        .add_extension(usage, critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return Pem(
        certificate=builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdigit():
        raise ConfigurationError(
            f"{host!r} is no host name or address: leave out scheme and port, and write "
            "international names as xn--…"
        )
    return x509.DNSName(host.rstrip("."))


def _save(folder: Path, name: str, pem: Pem) -> None:
    """Writes a certificate and its key; neither if there is one of them already."""
    files = {folder / f"{name}-key.pem": pem.key, folder / f"{name}.pem": pem.certificate}
    for path in files:
        if path.exists():
            raise ConfigurationError(f"{path} exists already: remove it, or choose another folder")
    for path, data in files.items():
        mode = 0o600 if data is pem.key else 0o644
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data or b"")
