"""The handshake: who is there, can we work together, do we share a secret.

    dialler                      acceptor
      Hello  ────────────────▶
             ◀────────────────   Hello
      Proof  ────────────────▶             verified before anything else is said
             ◀────────────────   Proof, Welcome

A proof is HMAC-SHA256, with the secret as key, over the sender's role, a hash of both `Hello`
messages as they were sent (so nothing in them, the nonces included, can be changed or replayed)
and the channel binding, such as the fingerprint of a certificate. No payload is accepted, and
nothing is unpickled, before the handshake is complete.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum, auto

from wool._protocol import frames as f
from wool.exceptions import AuthenticationError, ProtocolError, VersionMismatch

PROTOCOLS = (1,)
MAX_MESSAGE = 4096
"""Largest message in bytes that either side accepts during the handshake."""


class Role(Enum):
    """A side of a connection."""

    DIALLER = auto()
    ACCEPTOR = auto()


_EXPECTED = {Role.DIALLER: (f.Hello, f.Proof, f.Welcome), Role.ACCEPTOR: (f.Hello, f.Proof)}
"""The frames that a side gets, in this order."""

_LABEL = {Role.DIALLER: b"wool 1 dialler\0", Role.ACCEPTOR: b"wool 1 acceptor\0"}


class Handshake:
    """One side of a handshake: messages in, messages out, no I/O.

    Args:
        role: which side this is.
        mine: what this side says of itself.
        secret: the shared secret. It must not be empty.
        binding: what ties the proofs to the channel below, if there is something.
        welcome: acceptor only: what it says of itself after authentication.

    Attributes:
        peer: the other side's `Hello`, once it has come.
        welcome: the acceptor's `Welcome`, once it has come.
    """

    def __init__(
        self,
        role: Role,
        mine: f.Hello,
        secret: bytes,
        *,
        binding: bytes = b"",
        welcome: f.Welcome | None = None,
    ) -> None:
        if not secret:
            raise ValueError("a handshake needs a secret")
        if (role is Role.ACCEPTOR) is (welcome is None):
            raise ValueError("the acceptor, and only it, says welcome")
        self.role = role
        self.peer: f.Hello | None = None
        self.welcome = welcome
        self._mine = mine
        self._mine_bytes = f.encode(mine)
        self._peer_bytes = b""
        self._secret = secret
        self._binding = binding
        self._taken = 0  # of the frames that are expected

    def start(self) -> list[bytes]:
        """Returns the messages to send first."""
        return [self._mine_bytes]

    def receive(self, message: bytes | memoryview) -> list[bytes]:
        """Takes a message of the peer; returns the messages to send in answer.

        Raises:
            ProtocolError: the message is not one the peer may send now.
            VersionMismatch: the two sides cannot work together.
            AuthenticationError: the peer's proof is wrong, or it refused ours.
        """
        if len(message) > MAX_MESSAGE:
            raise ProtocolError(f"the peer sent {len(message)} bytes during the handshake")
        frame = f.decode_handshake(message)
        if isinstance(frame, f.Refuse):
            raise _refused(frame)
        if self.complete or type(frame) is not _EXPECTED[self.role][self._taken]:
            raise ProtocolError(f"the peer sent {type(frame).__name__} out of order")
        answer: list[bytes] = []
        if isinstance(frame, f.Hello):
            self.peer, self._peer_bytes = frame, bytes(message)
            check_compatible(self._mine, frame, self.role)
            answer = [self._prove()] if self.role is Role.DIALLER else []
        elif isinstance(frame, f.Proof):
            self._verify(frame)
            answer = [] if self.welcome is None else [self._prove(), f.encode(self.welcome)]
        else:
            self.welcome = frame
        self._taken += 1
        return answer

    @property
    def complete(self) -> bool:
        """Whether both sides have proved themselves."""
        return self._taken == len(_EXPECTED[self.role])

    def _prove(self) -> bytes:
        return f.encode(f.Proof(self._mac(self.role)))

    def _verify(self, proof: f.Proof) -> None:
        other = Role.ACCEPTOR if self.role is Role.DIALLER else Role.DIALLER
        if not hmac.compare_digest(proof.mac, self._mac(other)):
            raise AuthenticationError(
                "the peer could not prove that it knows the secret of this pool or cluster, for "
                "this connection: it has another one, or something in between ends TLS"
            )

    def _mac(self, role: Role) -> bytes:
        first, second = self._mine_bytes, self._peer_bytes
        if self.role is Role.ACCEPTOR:
            first, second = second, first
        text = _LABEL[role] + hashlib.sha256(first).digest() + hashlib.sha256(second).digest()
        return hmac.digest(self._secret, text + self._binding, "sha256")


def check_compatible(mine: f.Hello, peer: f.Hello, role: Role) -> None:
    """Checks that the two sides can work together.

    Raises:
        VersionMismatch, AuthenticationError: the message names the difference.
    """
    if mine.security != peer.security:
        raise AuthenticationError(
            f"this side authenticates with {mine.security or 'a secret'}, the peer with "
            f"{_printable(peer.security) or 'a secret'}: give both the same credentials"
        )
    if not set(mine.protocols) & set(peer.protocols):
        raise VersionMismatch(
            f"this side (wool-core {mine.wool}) speaks protocol {mine.protocols}, the peer "
            f"(wool-core {_printable(peer.wool)}) {peer.protocols}: upgrade the older one"
        )
    dialler, acceptor = (mine, peer) if role is Role.DIALLER else (peer, mine)
    if not dialler.serializer:
        pass  # it makes no calls, so neither code nor values travel
    elif mine.python != peer.python:
        raise VersionMismatch(
            f"this side runs Python {mine.python}, the peer Python {_printable(peer.python)}: code "
            "cannot travel between minor versions; run both on the same one"
        )
    elif dialler.serializer not in acceptor.serializers:
        known = _printable(", ".join(acceptor.serializers)) or "none"
        raise VersionMismatch(
            f"the worker has no serializer {dialler.serializer!r}, only {known}: install it there "
            "or choose another"
        )
    if min(peer.window, peer.chunk) < 1024:
        raise ProtocolError("the peer announced a window or chunk below 1 KiB")


_KINDS = {"version": VersionMismatch, "authentication": AuthenticationError}


def refusal(error: Exception) -> bytes:
    """Returns the message that tells a peer why its handshake ends."""
    code = next((code for code, kind in _KINDS.items() if isinstance(error, kind)), "")
    return f.encode(f.Refuse(code, str(error)[:1000]))


def _refused(frame: f.Refuse) -> Exception:
    kind = _KINDS.get(frame.code, ProtocolError)
    return kind(f"the peer refused the connection: {_printable(frame.message)}")


def _printable(text: str) -> str:
    """Returns what a stranger says without anything that would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:1000])
