"""A connection: messages over a bidirectional stream of gRPC, which carries bytes as a socket does.

`Stream` is a call of gRPC as a transport of asyncio, and `GrpcConnection` the protocol above it,
which cuts and assembles messages as that of a socket does. Two threads take part: the call lives on
gRPC's, the connection on that of the loop it belongs to. They tell each other by callbacks, and by
numbers that one side alone changes, so there is no lock: whoever has to wait says so first, and
looks once more.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from wool import abc
from wool._transports.stream import StreamConnection, pack
from wool_grpc._library import aio, grpc

WRITE = 512 << 10
"""Bytes in one write at most; what gRPC has to take from a stranger."""

QUEUE = 1 << 20
"""Bytes that may be on their way before `send` waits, and that are read before they are taken."""

FAREWELL = b""
"""What a listener writes last. Whoever has dialled ends the call when that has arrived."""

_OVER = "the peer has closed the connection, or is gone"

Read = Callable[[], Coroutine[Any, Any, Any]]
Write = Callable[[bytes], Coroutine[Any, Any, None]]
Finish = Callable[[], Coroutine[Any, Any, None]]


class Stream(asyncio.Transport):
    """A call of gRPC as a transport of asyncio; made on gRPC's thread.

    Args:
        loop: of the connection.
        read: returns what the peer has written next, or `aio.EOF`.
        write: returns when there is room for more.
        finish: ends the stream after what was written.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, read: Read, write: Write, finish: Finish
    ) -> None:
        super().__init__()
        self._loop = loop
        self._home = asyncio.get_running_loop()
        self._connection: Callable[[], GrpcConnection | None] = lambda: None
        self._outgoing: deque[bytes] = deque()
        self._sent = self._written = 0  # bytes, by the connection and to the call
        self._incoming: deque[bytes] = deque()
        self._arrived = self._taken = 0  # bytes, from the call and by the connection
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._writer_told = self._connection_told = False  # it is going to look
        self._full = self._reader_waits = False
        self._paused = self._closing = False  # by the connection
        self._ended = ""  # why nothing more will be read
        self._closed = False  # nothing is left of the call
        self._tasks: Sequence[asyncio.Future[None]] = (
            asyncio.ensure_future(self._read(read)),
            asyncio.ensure_future(self._write(write, finish)),
        )

    # On gRPC's thread -----------------------------------------------------------------------------

    async def carry(self) -> None:
        """Goes on until the stream has ended, or is aborted."""
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop()
            self._tasks = ()  # their tracebacks lead back here, and would keep the call
            self._ended = self._ended or _OVER
            self._tell()

    def closed(self) -> None:
        """Nothing is left of the call."""
        self._closed = True
        self._tell()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _read(self, read: Read) -> None:
        try:
            while (data := await read()) not in (aio.EOF, FAREWELL):
                self._incoming.append(data)
                self._arrived += len(data)
                self._tell()
                while self._reader_must_wait():
                    await self._room.wait()
        except Exception as error:
            self._ended = _broken(error)

    def _reader_must_wait(self) -> bool:
        self._room.clear()
        self._reader_waits = True
        self._reader_waits = self._arrived - self._taken > QUEUE
        return self._reader_waits

    async def _write(self, write: Write, finish: Finish) -> None:
        try:
            while self._outgoing or not self._closing:
                self._more.clear()
                self._writer_told = False
                while self._outgoing:
                    data = self._next_write()
                    await write(data)
                    self._written += len(data)
                    if self._full:
                        self._tell()
                if not self._closing:
                    await self._more.wait()
            await finish()
        except Exception:  # whoever reads finds out why, after what has already arrived
            await self._home.create_future()

    def _next_write(self) -> bytes:
        """Returns as much of what is queued as goes into one write."""
        parts = [self._outgoing.popleft()]
        size = len(parts[0])
        while self._outgoing and size + len(self._outgoing[0]) <= WRITE:
            parts.append(self._outgoing.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def _tell(self) -> None:
        """Lets the connection look at what has changed."""
        if self._connection_told:
            return
        self._connection_told = True
        try:
            self._loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # its loop is closed, so nobody has a use for it
            self._home.call_soon_threadsafe(self._stop)

    # On the thread of the connection --------------------------------------------------------------

    def attach(self, connection: GrpcConnection) -> None:
        """Gives a connection what arrives, from the next turn of the loop on.

        Until then a handler may say how large a message it takes. A connection that nobody has any
        more is not kept.
        """
        self._connection = weakref.ref(connection)
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._connection_told = False
        connection = self._connection()
        if connection is None:
            return
        while self._incoming and (self._closing or not self._paused):
            data = self._incoming.popleft()
            self._taken += len(data)
            if not self._closing:  # else the end comes after all that the peer has sent
                connection.take_in(data)
        if self._reader_waits:
            self._home.call_soon_threadsafe(self._room.set)
        if self._full and self.get_write_buffer_size() <= QUEUE:
            self._full = False
            connection.resume_writing()
        if self._ended and not self._incoming:
            connection.end(self._ended)
        if self._closed and not self._incoming:
            connection.connection_lost(None)

    def write(self, data: Any) -> None:
        self.push(data)
        if not self._full:
            self._full = True
            self._full = self.get_write_buffer_size() > QUEUE
            if self._full and (connection := self._connection()):
                connection.pause_writing()

    def push(self, data: abc.Buffer) -> None:
        """Queues bytes, on any thread, but only on one at a time."""
        self._sent += len(data)
        self._outgoing.append(bytes(data))
        self._wake_writer()

    def _wake_writer(self) -> None:
        if not self._writer_told:
            self._writer_told = True
            self._home.call_soon_threadsafe(self._more.set)

    def get_write_buffer_size(self) -> int:
        return self._sent - self._written

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._look)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._wake_writer()
        self._loop.call_soon(self._look)

    def abort(self) -> None:
        """Ends the stream at once, without waiting for gRPC. Idempotent; on any thread."""
        self._closing = True
        self._home.call_soon_threadsafe(self._stop)
        self.closed()


def _broken(error: Exception) -> str:
    """Returns why a stream has broken."""
    if isinstance(error, aio.AioRpcError):
        failure: Any = error
        if "ping" in (failure.details() or "").lower():
            return "the peer has not shown a sign of life for too long"
        if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "the peer has sent more at once than it may"
    return "the connection to the peer broke"


class GrpcConnection(StreamConnection):
    """Messages over a stream.

    Args:
        known: what `extra` tells.
    """

    piece = WRITE

    def __init__(self, stream: Stream, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._stream = self._transport = stream
        self._known = dict(known)
        self.attached = True
        stream.attach(self)

    def __del__(self) -> None:
        if not self._closed.done():
            self._stream.abort()

    def can_send_now(self) -> bool:
        return not (self._end or self._stream.get_write_buffer_size() or self._stream.is_closing())

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        with self._lock:
            for piece in pack(messages, self.piece):
                self._stream.push(piece)

    def take_in(self, data: bytes) -> None:
        """Takes bytes that have arrived."""
        try:
            self._give(self._cutter.cut(data, self.receive_limit))
        except MemoryError:  # else nothing would be read any more, and nobody told
            self._refuse("there is no memory left for what the peer has sent")

    def end(self, reason: str) -> None:
        """Takes note that nothing more will arrive."""
        self._finish(reason)
