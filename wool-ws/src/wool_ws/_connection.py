"""A WebSocket as a connection: the HTTP request and its answer on either side, then messages.

The payloads of its binary frames are a stream of messages, as `wool._transports.stream` cuts it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from wool import abc
from wool._transports.stream import SCRATCH, Cutter, StreamConnection
from wool_ws import Options
from wool_ws._liveness import PROBES, Watch, watch

FRAME = 64 << 10
"""Largest payload in bytes of a frame: what a peer can make us hold before we see any of it."""

MAX_SIZE = (None, FRAME)
"""Of WebSocket messages, and of their frames, in bytes."""

SILENT = logging.Logger("wool_ws", logging.CRITICAL + 1)  # noqa: LOG001
"""For websockets, which would tell the log of every connection. Nobody else can get at it."""

_NORMAL_CLOSURE = 1000
_POLICY_VIOLATION = 1008

_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""How an alert begins, and a handshake."""


class HungUp(Exception):
    """The peer has ended the connection before it said anything that counts.

    Attributes:
        silent: whether it said nothing at all.
    """

    def __init__(self, *, silent: bool) -> None:
        super().__init__()
        self.silent = silent


class SpeaksTls(InvalidHandshake):
    """The peer speaks TLS to somebody who does not."""


class WebSocket(StreamConnection):
    """The protocol of a socket, before it is a WebSocket and from then on.

    Args:
        protocol: websockets' side of it.
        options: say how the peer is looked after.
        limit: bytes in which the request or the answer must end.

    Attributes:
        head: the request or the answer, once it is there. Raises `InvalidHandshake` if it is not
            what it should be, `HungUp` or `OSError` if the connection has ended.
    """

    piece = FRAME

    def __init__(
        self, protocol: ClientProtocol | ServerProtocol, options: Options, limit: int
    ) -> None:
        super().__init__()
        self.head: asyncio.Future[Any] = self._loop.create_future()
        self._protocol = protocol
        self._options = options
        self._limit = limit
        self._received = 0  # bytes, until the head is there
        self._cutter = Cutter(4096)
        self._room: memoryview | None = None
        self._asked = False  # a control frame has arrived
        self._peer_closed = False
        self._interval = min(options.heartbeat, options.keepalive_timeout / PROBES)
        self._quiet = 0.0  # seconds since something was sent
        self._watch: Watch | None = None
        self._ticking: asyncio.TimerHandle | None = None

    # HTTP -----------------------------------------------------------------------------------------

    def respond(self) -> None:
        """Writes what the protocol has to say."""
        if self.attached:
            self._write()

    def upgraded(self, *, proxied: bool = False) -> None:
        """It is a WebSocket now.

        Args:
            proxied: whether a proxy is at its other end, of whom nobody wants to know.
        """
        if proxied:
            self._known = {"peer": self._known.get("peer", "a proxy")}
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is not None and isinstance(self._protocol, ClientProtocol):
            self._known["certificate"] = tls.getpeercert(binary_form=True)
        if not self._closed.done():
            idle, timeout = self._options.keepalive, self._options.keepalive_timeout
            self._watch = watch(self._transport, idle, timeout)
            self._ticking = self._loop.call_later(self._interval, self._tick)
            self.opened()

    async def hang_up(self) -> None:
        """Closes what has not become a WebSocket, once it is answered."""
        self._transport.close()
        await self._closed

    def _meet(self, events: list[Any]) -> None:
        """Looks whether the request or the answer is there."""
        if self._protocol.handshake_exc is not None:
            self._fail(self._protocol.handshake_exc)
        elif events and not isinstance(events[0], Frame):
            self.head.set_result(events.pop(0))
        elif self._received > self._limit:
            self._fail(InvalidHandshake(f"more than {self._limit} bytes"))
            self.abort()

    def _fail(self, error: Exception) -> None:
        if not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # nobody may be waiting for it any more

    # StreamConnection -----------------------------------------------------------------------------

    def _wrap(self, pieces: Sequence[abc.Buffer]) -> Sequence[abc.Buffer]:
        if self._protocol.state is State.OPEN:
            for piece in pieces:
                self._protocol.send_binary(piece)
        data = [data for data in self._protocol.data_to_send() if data]
        if data:
            self._quiet = 0.0
        return data

    def get_buffer(self, sizehint: int) -> memoryview:
        # TLS has got so much already, and forgets what of it was not taken when the peer is gone.
        if self._room is None or len(self._room) < sizehint:
            self._room = memoryview(bytearray(max(SCRATCH, sizehint)))
        return self._room

    def _unwrap(self, count: int) -> list[bytes | memoryview]:
        assert self._room is not None
        data = bytes(self._room[:count])
        if len(self._room) > SCRATCH:
            self._room = None
        if not self.head.done():
            if not self._received and data.startswith(_TLS_RECORDS):
                self._fail(SpeaksTls())
                self.abort()
                return []
            self._received += count
        with self._lock:
            if self._protocol.state is State.CLOSED:
                return []
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
        return self._take(events)

    def _take(self, events: list[Any]) -> list[bytes | memoryview]:
        """Returns the messages that are complete with what has arrived."""
        if not self.head.done():
            self._meet(events)
        messages: list[bytes | memoryview] = []
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
                messages += self._cutter.cut(event.data, self.receive_limit)
            elif event.opcode is Opcode.TEXT:
                self._cutter.fault = "the peer has sent text"
            else:
                self._asked = True
                self._peer_closed = self._peer_closed or event.opcode is Opcode.CLOSE
        return messages

    @property
    def _is_plain(self) -> bool:
        return super()._is_plain and not self._asked and self._protocol.state is State.OPEN

    def _settle(self) -> None:
        super()._settle()
        if self._protocol.state is State.CONNECTING:
            return
        if self._protocol.state is not State.OPEN:
            self._follow_protocol()
        elif self._asked and self._writable is None:
            self._write()
        elif self._asked:
            with self._lock:
                self._protocol.data_to_send()  # answers to pings of a peer that does not read them
        self._asked = False

    def _follow_protocol(self) -> None:
        """Ends the connection if the peer has done so, or has broken the rules of WebSockets."""
        self._write()
        if self._peer_closed:
            self._finish("the peer has closed the connection")
        elif not self._end:
            with self._lock:
                self._protocol.receive_eof()
            sent = self._protocol.close_exc.sent
            rule = sent.reason if sent is not None else "it ends within a frame"
            self._finish(f"the peer has broken the rules of WebSockets: {rule}")
        else:
            return  # we have, and wait for its answer
        self._transport.close()

    def _refuse(self, text: str) -> None:
        with self._lock:
            self._protocol.fail(_POLICY_VIOLATION, text)
        self._write()
        self._finish(text)
        self._transport.close()

    def _begin_to_close(self) -> None:
        with self._lock:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(_NORMAL_CLOSURE)
        self._write()
        self._read(True)  # the peer's answer is behind what it has sent

    def eof_received(self) -> None:
        if self.head.done():
            super().eof_received()
        elif self._received:
            with self._lock:
                self._protocol.receive_eof()  # the end of an answer, maybe
                events = self._protocol.events_received()
            self._meet(events)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        if not self.head.done():
            if exc is None or isinstance(exc, ConnectionError):
                self._fail(HungUp(silent=not self._received))
            else:
                self._fail(exc)
        super().connection_lost(exc)

    # Liveness -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Looks after the peer, and tells proxies that we are still here."""
        if not self.delegated:
            self._room = None  # of thousands of peers, most are silent at any time
        if self._watch is not None and self._watch.is_silent():
            self._finish("the peer does not answer any more")
            self.abort()
            return
        self._quiet += self._interval
        idle = not self._end and not self._transport.get_write_buffer_size()
        if idle and self._quiet + self._interval > self._options.heartbeat:
            with self._lock:
                if self._protocol.state is State.OPEN:
                    self._protocol.send_pong(b"")  # nobody answers it: nobody can be late
            self._write()
        self._ticking = self._loop.call_later(self._interval, self._tick)
