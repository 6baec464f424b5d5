"""The ways in which connections are secured, as transports see them (`wool.abc.Tls`)."""

from __future__ import annotations

import ssl
import threading

from wool._security import contexts
from wool._security.certificates import NAME, Throwaway
from wool._security.files import Files
from wool.abc import Pem, Tls


class ThrowawayChannel(Tls):
    """The listener shows a certificate of its own making; whoever dials takes any.

    The proof that follows makes it safe: it is bound to the certificate.
    """

    verify = False
    server_name = NAME
    asks_client = False

    def __init__(self, own: Throwaway | None = None) -> None:
        self._own = own

    def server_context(self) -> ssl.SSLContext:
        return contexts.server_context(self.server_pem())

    def client_context(self) -> ssl.SSLContext:
        return contexts.client_context(Pem(), verify=False)

    def server_pem(self) -> Pem:
        assert self._own is not None, "only a listener has a certificate"
        return self._own.pem

    def client_pem(self) -> Pem:
        return Pem()


class ProxyChannel(Tls):
    """A proxy in front of the listener ends TLS; whoever dials verifies it as browsers do.

    Args:
        name: the proxy's host name.
        authorities: whom to trust to say who that is; None: those the system trusts.
    """

    verify = True
    asks_client = False

    def __init__(self, name: str, authorities: bytes | None) -> None:
        self.server_name = name
        self._pem = Pem(authorities=authorities)

    def server_context(self) -> ssl.SSLContext:
        raise NotImplementedError("behind a proxy that ends TLS nobody listens with TLS")

    def client_context(self) -> ssl.SSLContext:
        return contexts.client_context(self._pem, verify=True)

    def server_pem(self) -> Pem:
        raise NotImplementedError("behind a proxy that ends TLS nobody listens with TLS")

    def client_pem(self) -> Pem:
        return self._pem


class MutualChannel(Tls):
    """Both sides show certificates that the same authority has signed."""

    verify = True
    asks_client = True

    def __init__(self, files: Files, name: str | None) -> None:
        self.server_name = name
        self._files = files
        self._lock = threading.Lock()
        self._generation = -1
        self._context: ssl.SSLContext | None = None

    def server_context(self) -> ssl.SSLContext:
        """Returns a context that hands each connection over to one made from the files of now."""
        context = contexts.server_context(self._files.current())

        def chosen(connection: ssl.SSLObject, name: str, original: ssl.SSLContext) -> None:
            connection.context = self._current()

        context.sni_callback = chosen  # type: ignore[assignment]
        return context

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            pem = self._files.current()
            if self._context is None or self._generation != self._files.generation:
                self._context = contexts.server_context(pem)
                self._generation = self._files.generation
            return self._context

    def client_context(self) -> ssl.SSLContext:
        return contexts.client_context(self._files.current(), verify=True)

    def server_pem(self) -> Pem:
        return self._files.current()

    def client_pem(self) -> Pem:
        return self._files.current()
