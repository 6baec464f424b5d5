"""From a byte stream to a WebSocket: the HTTP request and its answer, on either side."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from wool_ws._framing import STRANGERS_FRAME
from wool_ws._reading import Reader

SILENT = logging.Logger("wool_ws", logging.CRITICAL + 1)  # noqa: LOG001
"""For websockets, which would tell the log of every connection. Nobody else can get at it."""

MAX_SIZE = (None, STRANGERS_FRAME)
"""Of WebSocket messages, and of their frames, in bytes."""

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


class Upgrade(Reader):
    """What a socket is connected to until it is a WebSocket.

    Args:
        protocol: websockets' side of it.
        limit: bytes in which the request or the answer must end.

    Attributes:
        transport: the loop's, once it is connected; after the TLS handshake, if there is one.
        early: frames that came right behind the answer.
        closed: done when the connection has ended.
    """

    transport: asyncio.Transport | None = None

    def __init__(self, protocol: ClientProtocol | ServerProtocol, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.early: list[Frame] = []
        self.closed: asyncio.Future[None] = loop.create_future()
        self._protocol = protocol
        self._limit = limit
        self._head: asyncio.Future[Request | Response] = loop.create_future()
        self._received = 0

    async def head(self) -> Any:
        """Waits for the request or the answer.

        Raises:
            InvalidHandshake: it is not what it should be.
            HungUp, OSError: the connection has ended.
        """
        return await self._head

    def flush(self) -> None:
        """Writes what the protocol has to say."""
        if self.transport is not None and not self.transport.is_closing():
            for data in self._protocol.data_to_send():
                if data:
                    self.transport.write(data)

    def abort(self) -> None:
        """Closes at once, and lets go of the connection."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    # Reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._received and data.startswith(_TLS_RECORDS):
            self._fail(SpeaksTls())
            self.abort()
            return
        self._received += len(data)
        self._protocol.receive_data(data)
        self._process()
        if not self._head.done() and self._received > self._limit:
            self._fail(InvalidHandshake(f"more than {self._limit} bytes"))
            self.abort()

    def eof_received(self) -> None:
        if self._received:
            self._protocol.receive_eof()  # the end of an answer, maybe
            self._process()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None or isinstance(exc, ConnectionError):
            exc = HungUp(silent=not self._received)
        self._fail(exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def _process(self) -> None:
        events = self._protocol.events_received()
        if self._protocol.handshake_exc is not None:
            self._fail(self._protocol.handshake_exc)
        elif events and not self._head.done() and not isinstance(events[0], Frame):
            self._head.set_result(events.pop(0))  # type: ignore[arg-type]
        self.early += [event for event in events if isinstance(event, Frame)]

    def _fail(self, error: Exception) -> None:
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody may be waiting for it any more
