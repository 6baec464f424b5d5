"""The ways in which connections are secured, as transports see them (`wool.abc.Tls`)."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import Generator

from wool.abc import Pem, Tls
from wool.exceptions import ConfigurationError

THROWAWAY = "wool"
"""The name that a throw-away certificate is made out to. It is recognised by its fingerprint."""


class Channel(Tls):
    """TLS with contexts that are made of the PEM texts of the moment."""

    def server_context(self) -> ssl.SSLContext:
        return server_context(self.server_pem())

    def client_context(self) -> ssl.SSLContext:
        return client_context(self.client_pem(), verify=self.verify)


class ThrowawayChannel(Channel):
    """The listener shows a certificate of its own making; the side that dials takes any.

    The proof that follows makes it safe: it is bound to the certificate.
    """

    verify = False
    server_name = THROWAWAY
    asks_client = False

    def __init__(self, own: Pem | None = None) -> None:
        self._own = own

    def server_pem(self) -> Pem:
        assert self._own is not None, "only a listener has a certificate"
        return self._own

    def client_pem(self) -> Pem:
        return Pem()


class ProxyChannel(Channel):
    """A proxy in front of the listener ends TLS; the side that dials verifies it as browsers do.

    Args:
        name: the proxy's host name.
        ca: file with the authorities that say who that is; None: those that the system trusts.
    """

    verify = True
    asks_client = False

    def __init__(self, name: str, ca: str | None) -> None:
        self.server_name = name
        self._pem = Pem(authorities=_authorities(ca) if ca else None)

    def server_pem(self) -> Pem:
        raise NotImplementedError("behind a proxy that ends TLS nobody listens with TLS")

    def client_pem(self) -> Pem:
        return self._pem


class MutualChannel(Channel):
    """Both sides show certificates that the same authority has signed, from files.

    The files may be replaced while they are in use. One that cannot be read any more, or a
    certificate whose key is not yet there, leaves in force what was read before.

    Args:
        ca, cert, key: paths of PEM files: an authority's certificate, an own one and its key.
        name: what the certificates of listeners are made out to; None: the host in their address.

    Raises:
        ConfigurationError: a file is of no use; names it.
    """

    verify = True
    asks_client = True

    def __init__(self, ca: str, cert: str, key: str, name: str | None = None) -> None:
        self.server_name = name
        self._paths = (ca, cert, key)
        self._lock = threading.Lock()
        self._stamp: list[tuple[int, int, int]] = []
        self._current = self._read()

    def server_context(self) -> ssl.SSLContext:
        """Returns a context that hands each connection over to one made from the files of now."""
        context = super().server_context()

        def chosen(connection: ssl.SSLObject, name: str, original: ssl.SSLContext) -> None:
            connection.context = self._refreshed()[1]

        context.sni_callback = chosen  # type: ignore[assignment]
        return context

    def server_pem(self) -> Pem:
        """Returns what the files hold; three calls of `stat` if they are unchanged."""
        return self._refreshed()[0]

    def client_pem(self) -> Pem:
        return self.server_pem()

    def _refreshed(self) -> tuple[Pem, ssl.SSLContext]:
        with self._lock:
            with contextlib.suppress(OSError, ConfigurationError):
                stamp = self._look()
                if stamp != self._stamp:
                    self._current, self._stamp = self._read(), stamp
            return self._current

    def _look(self) -> list[tuple[int, int, int]]:
        found = [os.stat(path) for path in self._paths]
        return [(s.st_mtime_ns, s.st_size, s.st_ino) for s in found]

    def _read(self) -> tuple[Pem, ssl.SSLContext]:
        """Returns what the files hold, and a context to listen with that is made of it."""
        ca, cert, key = self._paths
        shown, secret = _content(cert), _content(key)
        pem = Pem(certificate=shown, key=secret, authorities=_authorities(ca))
        fault = "one of them holds something else"  # which OpenSSL says in riddles, or not at all
        try:
            if b"CERTIFICATE-----" in shown and b"PRIVATE KEY-----" in secret:
                return pem, server_context(pem)
        except ssl.SSLError as error:
            fault = (error.reason or "damaged").lower().replace("_", " ")
        raise ConfigurationError(
            f"the certificate {cert} and the key {key} cannot be used: {fault}. Both have "
            "to be in PEM form and belong together, and the key must not need a password"
        )


def _content(path: str) -> bytes:
    """Returns what is in a file, or says why it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"the TLS file {path} cannot be read: {error.strerror}") from None


def _authorities(path: str) -> bytes:
    """Returns the certificates that a file holds, without remarks in other scripts between them."""
    pem = _content(path).decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"the TLS file {path} holds no certificate in PEM form") from None
    return pem.encode()


# Contexts from PEM texts in memory, which Python's `ssl` takes from files only ------------------


def server_context(pem: Pem) -> ssl.SSLContext:
    """Returns a context to listen with; it demands a certificate if there are authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, pem)
    if pem.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session shows no certificate, so nobody would see that it has expired.
        context.num_tickets = 0
    return context


def client_context(pem: Pem, *, verify: bool) -> ssl.SSLContext:
    """Returns a context to dial with; without `verify` it takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if verify else ssl.TLSVersion.TLSv1_3
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif pem.authorities is None:
        context.load_default_certs()
    _load(context, pem)
    return context


def _load(context: ssl.SSLContext, pem: Pem) -> None:
    if pem.authorities is not None:
        context.load_verify_locations(cadata=pem.authorities.decode("ascii"))
    if pem.certificate is not None and pem.key is not None:
        with _file(pem.certificate + b"\n" + pem.key) as path:
            context.load_cert_chain(path, password="")  # without it, OpenSSL asks on the terminal


@contextlib.contextmanager
def _file(data: bytes) -> Generator[str]:
    """A file for a moment, where possible in memory, so that no key is ever on a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("wool")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="wool-tls-") as folder:  # for its user alone
        path = os.path.join(folder, "pem")
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        yield path
