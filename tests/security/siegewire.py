"""Byte streams to a worker, below its transport: for what no well-behaved library would send."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from contextlib import suppress

from security.siegeproxies import host_and_port, unverified
from wool._addresses import is_socket
from wool._plugins.lookup import scheme_transport


class Wire:
    """A socket connected to a worker, past the TLS handshake where there is one.

    Blocking; to be used in a thread. What the worker does not take any more is lost.

    Args:
        tls: whether to go through that handshake.
        context: for it; by default one that takes any certificate and shows none.
        session: an earlier one to resume.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: bool = True,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        local = is_socket(address)
        self._kind = scheme_transport(address)
        sock = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
        sock.settimeout(10)
        self._sock = sock
        self.open = True
        sock.connect(address.partition("://")[2] if local else host_and_port(address))
        if tls and not local:
            context = context or unverified()
            context.set_alpn_protocols(["h2"] if self._kind == "grpc" else [])
            self._sock = context.wrap_socket(sock, session=session)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def send(self, data: bytes) -> bool:
        """Sends bytes; False once the worker has hung up."""
        try:
            self._sock.sendall(data)
        except OSError:
            self.open = False
        return self.open

    def rest(self, patience: float = 0.2) -> bytes:
        """Returns what the worker says until it hangs up, or is silent for so many seconds.

        Raises:
            TimeoutError: it does not hang up.
        """
        received = b""
        self._sock.settimeout(patience)
        with suppress(ConnectionError, ssl.SSLError):
            while part := self._sock.recv(65536):
                received += part
        return received

    def answer(self) -> bytes:
        """Returns what the worker says first. Over TLS it may only now refuse us."""
        return self._sock.recv(12)

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session of TLS, which may be resumed."""
        assert isinstance(self._sock, ssl.SSLSocket)
        return self._sock.session

    # What a transport says before and around messages of Wool

    def begin(self) -> Wire:
        """Does what the transport wants before the first message."""
        if self._kind == "ws":
            key = base64.b64encode(os.urandom(16))
            self.send(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: " + key + b"\r\n\r\n"
            )
            assert self.answer() == b"HTTP/1.1 101"
        elif self._kind == "grpc":
            self.send(PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS))
        return self

    def announce(self, size: int) -> bytes:
        """Returns what would begin a unit of so many bytes in the transport's own framing."""
        match self._kind:
            case "ws":
                return b"\x82\xff" + struct.pack(">Q", size) + bytes(4)
            case "grpc":
                return frame(0, 0, 1, b"\0" + struct.pack(">I", size))
        return struct.pack("<I", size)

    def wrap(self, data: bytes) -> bytes:
        """Returns a unit of the transport's framing with this content, such as a prefix of ours."""
        match self._kind:
            case "ws":
                return b"\x82" + bytes([0x80 | len(data)]) + bytes(4) + data
            case "grpc":
                return frame(0, 0, 1, b"\0" + struct.pack(">I", len(data)) + data)
        return data


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = (
    b"\x83\x87"  # :method POST, :scheme https
    + _literal(b":path", b"/wool.Transport/Connect")
    + _literal(b":authority", b"localhost")
    + _literal(b"content-type", b"application/grpc")
    + _literal(b"te", b"trailers")
)
