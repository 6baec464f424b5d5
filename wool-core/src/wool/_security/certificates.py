"""Certificates: the throw-away one of a worker, and a small authority for mutual TLS.

The library `cryptography` comes with the extra `tls`, which the packages of the network transports
require. It is imported when a certificate is made, not before.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wool.abc import Pem
from wool.exceptions import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as Key
    from cryptography.x509 import Certificate

NAME = "wool"
"""The name that a throw-away certificate is made out to. It is recognised by its fingerprint."""

_FILE = re.compile(r"(?!-)[\w.@ -]{0,63}[\w@]")
"""Names of files, and of the holders of certificates."""

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")

# A throw-away certificate lives as long as its worker, so clocks that differ must not matter.
_ALWAYS = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Throwaway:
    """A self-signed certificate with its key."""

    pem: Pem
    der: bytes


def throwaway() -> Throwaway:
    """Makes a certificate that nobody has seen before."""
    x509, serialization = _library()
    key = _new_key()
    certificate = _sign(NAME, key, NAME, key, _ALWAYS, names=[x509.DNSName(NAME)], authority=False)
    return Throwaway(
        Pem(certificate=_pem(certificate), key=_key_pem(key)),
        certificate.public_bytes(serialization.Encoding.DER),
    )


def make_authority(folder: Path, days: int) -> None:
    """Writes `ca.pem` and `ca-key.pem` into `folder`; the latter for its user alone.

    Raises:
        ConfigurationError: there is one already.
    """
    _library()  # complains if it is missing
    folder.mkdir(parents=True, exist_ok=True)
    _check_new(folder / "ca-key.pem", folder / "ca.pem")
    key = _new_key()
    name = f"Wool authority {os.urandom(4).hex()}"
    _write(folder / "ca-key.pem", _key_pem(key), secret=True)
    _write(
        folder / "ca.pem", _pem(_sign(name, key, name, key, _span(days), names=[], authority=True))
    )


def make_certificate(folder: Path, name: str, hosts: Sequence[str], days: int) -> None:
    """Writes `<name>.pem` and `<name>-key.pem`, signed by the authority in `folder`.

    Args:
        name: of the files and in the certificate, at most 64 characters.
        hosts: host names and addresses that the certificate is good for.

    Raises:
        ConfigurationError: there is no usable authority, a certificate of that name already, or an
            argument is of no use.
    """
    x509, serialization = _library()
    if not _FILE.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a file and of a certificate")
    try:
        issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        issuer_key: Any = serialization.load_pem_private_key(
            (folder / "ca-key.pem").read_bytes(), None
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder} has no usable authority (ca.pem, ca-key.pem): {error}. Make one with "
            "`wool certs authority`"
        ) from None
    names = [_general_name(x509, host) for host in hosts]
    _check_new(folder / f"{name}-key.pem", folder / f"{name}.pem")
    key = _new_key()
    authority = issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    certificate = _sign(
        name, key, str(authority), issuer_key, _span(days), names=names, authority=False
    )
    _write(folder / f"{name}-key.pem", _key_pem(key), secret=True)
    _write(folder / f"{name}.pem", _pem(certificate))


def _library() -> tuple[Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise ConfigurationError(
            'making certificates needs the package cryptography: pip install "wool-core[tls]"'
        ) from None
    return x509, serialization


def _new_key() -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _span(days: int) -> tuple[dt.datetime, dt.datetime]:
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    return min(now, end) - dt.timedelta(hours=1), end


def _sign(
    subject: str,
    key: Key,
    issuer: str,
    issuer_key: Key,
    span: tuple[dt.datetime, dt.datetime],
    *,
    names: Sequence[Any],
    authority: bool,
) -> Certificate:
    """Makes a certificate as RFC 5280 wants it, for both ends of TLS."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(_usage(authority), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
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


def _general_name(x509: Any, host: str) -> Any:
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


def _pem(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _check_new(*paths: Path) -> None:
    """Raises ConfigurationError if a file exists, before the half of a pair has been written."""
    for path in paths:
        if path.exists():
            raise _taken(path)


def _taken(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} exists already: remove it, or choose another folder")


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Writes a new file; one that exists is never replaced."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    except FileExistsError:
        raise _taken(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
