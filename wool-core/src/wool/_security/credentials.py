"""Credentials: what it takes to be let in, on either side of a connection.

Each kind says how the transport secures connections, which secret the proofs of the handshake show
knowledge of, and what of the channel below they are bound to. There is always a handshake, so a
connection never gets as far as the unpickler by accident of configuration.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wool._addresses import host_of, is_loopback
from wool._msgspec import Struct
from wool._security import tokens
from wool._security.tls import MutualChannel, ProxyChannel, ThrowawayChannel
from wool.abc import Tls
from wool.exceptions import AuthenticationError, ConfigurationError

if TYPE_CHECKING:
    from wool.abc import Connection

REMEDY = (
    "set WOOL_TOKEN (`wool token` prints one), or give credentials=wool.Credentials.token(…) or "
    ".tls(…)"
)
"""The remedy where there are none and have to be."""

StrPath = str | os.PathLike[str]

_PUBLIC = b"wool: not a secret"
"""The secret of those kinds in which something else authenticates the peer."""


class Acceptor(Struct, frozen=True):
    """The side of credentials that lets others in.

    Attributes:
        tls: what the transport listens with; None: without TLS.
        binding: what of the channel the proofs are bound to.
    """

    credentials: Authenticator
    tls: Tls | None
    binding: bytes


class Credentials:
    """Proof to others that they may talk to us, and to us that we may talk to them.

    Made with `Credentials.token(…)` or `Credentials.tls(…)`. Its `repr` shows no secret.
    """

    @staticmethod
    def token(
        token: str | None = None, *, proxy: str | None = None, ca: StrPath | None = None
    ) -> Credentials:
        """Everyone in the cluster knows one token.

        Connections are encrypted with throw-away certificates, and both sides prove that they know
        the token, bound to the certificate in use, so that nobody can listen in between.

        Args:
            token: one that `wool token` or `new_token` has made. By default the content of the
                environment variable `WOOL_TOKEN`, or of the file that `WOOL_TOKEN_FILE` names.
            proxy: host name of a proxy in front of the workers that ends TLS. A caller that dials
                verifies its certificate and that name; a worker listens without TLS and binds its
                proof to the name. The network between proxy and worker has to be trusted.
            ca: PEM file with the authority that signed the proxy's certificate; by default those
                that the system trusts.

        Raises:
            ConfigurationError: there is no token, it is none that Wool has made, or a file cannot
                be read.
        """
        given: Any = token  # not everybody uses a type checker
        if given is not None and not isinstance(given, str):
            raise ConfigurationError(f"token must be a string, not {type(given).__name__}")
        token = tokens.check(token, "the argument") if token is not None else environment_token()
        if token is None:
            raise ConfigurationError(
                "there is no token: give one, or set WOOL_TOKEN or WOOL_TOKEN_FILE. "
                "`wool token` prints a good one"
            )
        return Token(token, proxy=proxy, ca=None if ca is None else _path("ca", ca))

    @staticmethod
    def new_token() -> str:
        """Returns a new token of 256 random bits, to be known to the whole cluster."""
        return tokens.generate()

    @staticmethod
    def tls(*, ca: StrPath, cert: StrPath, key: StrPath, name: str | None = None) -> Credentials:
        """Everyone in the cluster has a certificate of the same authority (mutual TLS).

        The files are read again when they change; connections that are open stay so.

        Args:
            ca: PEM file with the certificate of the authority, which should sign for nobody else.
            cert: PEM file with the own certificate, and those in between if there are any.
            key: PEM file with its private key, without a password.
            name: the name that the certificates of workers are made out to; by default each one's
                has to name the host in its address.

        Raises:
            ConfigurationError: a file cannot be read or used.
        """
        return MutualTls(_path("ca", ca), _path("cert", cert), _path("key", key), name)


class Authenticator(Credentials):
    """Credentials, with what the two ends of a connection ask of them.

    Attributes:
        kind: names it in errors, and to the peer. No secret.
        secret: what both sides prove to know.
        channel_proves: whether the channel alone proves who the peer is, so that what it says
            before it has shown a proof of its own can be believed.
    """

    kind: str
    secret: bytes = _PUBLIC
    channel_proves: bool = False
    _arguments: Mapping[str, Any] = {}

    def acceptor(self) -> Acceptor:
        """Returns what it takes to listen."""
        return Acceptor(self, None, b"")

    def client_tls(self) -> Tls | None:
        """Returns what a transport dials with."""
        return None

    def binding(self, connection: Connection) -> bytes:
        """Returns what of a connection that was dialled the proofs are bound to."""
        return b""

    def check_peer(self, connection: Connection) -> None:
        """Raises AuthenticationError if the peer is not one that these credentials are good for."""
        return

    def export(self) -> Exported:
        """Returns what `restore` makes the same credentials of, in another process."""
        return type(self).__name__, dict(self._arguments)

    def __dir__(self) -> Iterable[str]:
        return dir(Credentials)  # all that there is for those who have made them

    def __repr__(self) -> str:
        return f"<credentials: {self.kind}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("credentials are not sent anywhere: make them where they are needed")


class Token(Authenticator):
    """The cluster's token, over TLS with throw-away certificates or through a proxy."""

    def __init__(self, token: str, *, proxy: str | None = None, ca: str | None = None) -> None:
        self.secret = token.encode()
        self.kind = f"a token, through the proxy {proxy}" if proxy else "a token"
        self._arguments = {"token": token, "proxy": proxy, "ca": ca}
        self._proxy = proxy or None
        if ca and not proxy:
            raise ConfigurationError(
                "`ca` along with a token is for the proxy that ends TLS: give its name as `proxy`"
            )
        self._channel: Tls = ProxyChannel(proxy, ca) if proxy else ThrowawayChannel()

    def acceptor(self) -> Acceptor:
        if self._proxy is not None:
            return Acceptor(self, None, self._proxy.encode())
        from wool._security.certificates import throwaway  # it needs a library that is large

        own = throwaway()
        assert own.certificate is not None
        der = ssl.PEM_cert_to_DER_cert(own.certificate.decode())
        return Acceptor(self, ThrowawayChannel(own), _fingerprint(der))

    def client_tls(self) -> Tls | None:
        return self._channel

    def binding(self, connection: Connection) -> bytes:
        if self._proxy is not None:
            return self._proxy.encode()
        certificate = connection.extra("certificate")
        if certificate is None:
            raise AuthenticationError(
                "the transport does not tell the certificate of the worker, so a token cannot be "
                "used over it: use another transport, or upgrade the package it comes from"
            )
        return _fingerprint(certificate)


class MutualTls(Authenticator):
    """Certificates of one authority on both sides; TLS itself authenticates."""

    kind = "certificates"
    channel_proves = True

    def __init__(self, ca: str, cert: str, key: str, name: str | None = None) -> None:
        self._arguments = {"ca": ca, "cert": cert, "key": key, "name": name}
        self._channel = MutualChannel(ca, cert, key, name or None)

    def acceptor(self) -> Acceptor:
        return Acceptor(self, self._channel, b"")

    def client_tls(self) -> Tls | None:
        return self._channel


class PoolSecret(Authenticator):
    """The secret of one pool, which its workers get over an inherited pipe."""

    kind = "the secret of a pool"
    channel_proves = True  # only its user can enter the directory of its socket

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = secret or os.urandom(32)
        self._arguments = {"secret": self.secret}


class SameUser(Authenticator):
    """Being a process of the same user, as the kernel says of both ends of a Unix socket."""

    kind = "the user of the machine"
    channel_proves = True

    def check_peer(self, connection: Connection) -> None:
        uid = connection.extra("uid")
        if uid is None:
            raise AuthenticationError(
                "this transport does not tell who is at the other end of a Unix socket: use the "
                "transport 'unix', or a network address with credentials"
            )
        if uid != os.geteuid():
            raise AuthenticationError(f"the other end belongs to the user with id {uid}")


class Insecure(Authenticator):
    """No authentication, for tests on the loopback interface."""

    kind = "none (insecure)"


_KINDS = {kind.__name__: kind for kind in (Token, MutualTls, PoolSecret, SameUser, Insecure)}

Exported = tuple[str, dict[str, Any]]
"""A class of credentials by its name, and its arguments."""


def restore(exported: Exported) -> Authenticator:
    """Returns the credentials that `export` described."""
    name, arguments = exported
    return _KINDS[name](**arguments)


class Keyring(Struct, frozen=True):
    """Credentials for connections within this machine, and for those that may leave it.

    Attributes:
        local: for Unix sockets and memory.
        network: for everything else; None: there are none, and so no such connections.
    """

    local: Authenticator
    network: Authenticator | None = None

    def pick(self, address: str, *, local: bool) -> Authenticator:
        """Returns what goes with `address`.

        Raises:
            ConfigurationError: it is on a network, and there are no credentials for that.
        """
        if local:
            return self.local
        if self.network is None:
            raise ConfigurationError(
                f"{address} is on a network, so it takes credentials: {REMEDY}"
            )
        if isinstance(self.network, Insecure) and host_of(address) and not is_loopback(address):
            raise ConfigurationError(
                f"{address} may be on another machine, and insecure=True is for the loopback "
                "interface only: use credentials"
            )
        return self.network

    def export(self) -> list[Exported]:
        """Returns what `restore_keyring` makes the same of, in another process."""
        return [one.export() for one in (self.local, self.network) if one is not None]


def restore_keyring(exported: Iterable[Exported]) -> Keyring:
    """Returns the keyring that `export` described."""
    return Keyring(*map(restore, exported))


def _path(name: str, given: object) -> str:
    """Returns the path of a PEM file; neither a key nor anything else is in the error."""
    kind = type(given).__name__
    path = os.fspath(given) if isinstance(given, os.PathLike) else given  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not isinstance(path, str):
        raise ConfigurationError(f"{name} must be the path of a PEM file, not {kind}")
    if "-----BEGIN" in path:
        raise ConfigurationError(f"{name} must be the path of a PEM file, not what is in it")
    return path


def _fingerprint(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def environment_token() -> str | None:
    """Returns the token that `WOOL_TOKEN` is or `WOOL_TOKEN_FILE` names."""
    token, path = os.environ.get("WOOL_TOKEN"), os.environ.get("WOOL_TOKEN_FILE")
    if token and path:
        raise ConfigurationError("both WOOL_TOKEN and WOOL_TOKEN_FILE are set: unset one of them")
    if token:
        return tokens.check(token, "WOOL_TOKEN")
    return tokens.read(path, "WOOL_TOKEN_FILE") if path else None
