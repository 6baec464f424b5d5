"""Certificates and keys in files, which may be replaced while they are in use."""

from __future__ import annotations

import os
import ssl
import threading

from wool._security import contexts
from wool.abc import Pem
from wool.exceptions import ConfigurationError

Stamp = tuple[tuple[int, int, int], ...]


class Files:
    """An authority's certificate, an own certificate and its key, as they are on disk now.

    A file that cannot be read any more, or a certificate whose key is not yet there, leaves in
    force what was read before: whoever replaces them needs a moment.

    Args:
        ca, cert, key: paths of PEM files.

    Attributes:
        generation: counts how often they have changed.

    Raises:
        ConfigurationError: they are of no use; names the file.
    """

    def __init__(self, ca: str, cert: str, key: str) -> None:
        self._paths = (ca, cert, key)
        self._lock = threading.Lock()
        self.generation = 0
        try:
            self._stamp: Stamp = self._look()
            self._pem = self._read()
        except OSError as error:
            raise ConfigurationError(
                f"the TLS file {error.filename} cannot be read: {error.strerror}"
            ) from None
        self._check(self._pem)

    def current(self) -> Pem:
        """Returns what the files hold; three calls of `stat` if they are unchanged."""
        with self._lock:
            try:
                stamp = self._look()
                if stamp != self._stamp:
                    pem = self._read()
                    self._check(pem)
                    self._pem, self._stamp = pem, stamp
                    self.generation += 1
            except (OSError, ConfigurationError):
                pass
            return self._pem

    def _look(self) -> Stamp:
        found = [os.stat(path) for path in self._paths]
        return tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in found)

    def _read(self) -> Pem:
        ca, cert, key = self._paths
        return Pem(certificate=_content(cert), key=_content(key), authorities=authorities(ca))

    def _check(self, pem: Pem) -> None:
        fault = _fault(pem)
        if fault:
            _, cert, key = self._paths
            raise ConfigurationError(
                f"the certificate {cert} and the key {key} cannot be used: {fault}. Both have "
                "to be in PEM form and belong together, and the key must not need a password"
            )


def _fault(pem: Pem) -> str:
    """Returns what is wrong with a certificate and its key, or nothing."""
    if b"CERTIFICATE-----" not in (pem.certificate or b""):  # which OpenSSL says in riddles, or,
        return "the former holds no certificate"  # if it is in the file of the key, not at all
    if b"PRIVATE KEY-----" not in (pem.key or b""):
        return "the latter holds no private key"
    try:
        contexts.server_context(pem)
    except ssl.SSLError as error:
        if error.reason in (None, "PEM_LIB"):
            return "one of them is damaged, or the key is encrypted"
        return error.reason.lower().replace("_", " ")
    return ""


def authorities(path: str) -> bytes:
    """Returns the certificates that a file holds, without remarks in other scripts between them.

    Raises:
        OSError: it cannot be read.
        ConfigurationError: it holds none.
    """
    pem = _content(path).decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"the TLS file {path} holds no certificate in PEM form") from None
    return pem.encode()


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
