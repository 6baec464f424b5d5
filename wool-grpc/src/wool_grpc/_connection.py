"""A connection: messages over a bidirectional stream of gRPC.

A message is `<u32 length, little-endian> bytes`. A write is one message of gRPC, and holds as many
messages of Wool as fit.

Two threads take part. `Stream` reads and writes on gRPC's, `GrpcConnection` cuts and assembles on
that of the loop it belongs to. They tell each other by callbacks, and by numbers that one side
alone changes, so there is no lock: whoever has to wait says so first, and looks once more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import struct
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from wool import abc
from wool_grpc._library import aio, grpc

MAX_MESSAGE = 512 << 10

WRITE = MAX_MESSAGE + 4
"""Bytes in one write at most; what gRPC has to take from a stranger."""

QUEUE = 1 << 20
"""Bytes that may be on their way before `send` waits."""

READ_AHEAD = 2 << 20
"""Bytes that may wait for `receive`."""

STRANGERS = 16
"""Messages of the size that is accepted that may wait: less than `READ_AHEAD` for strangers."""

FLUSH = 1.0
"""Seconds the peer has to take what is queued when the connection is closed."""

LOOKS = 4
"""Parts of these seconds. A process that is stopped for a while loses one, and not all of them."""

_LENGTH = struct.Struct("<I")

Read = Callable[[], Coroutine[Any, Any, Any]]
Write = Callable[[bytes], Coroutine[Any, Any, None]]
Finish = Callable[[], Coroutine[Any, Any, None]]


# On gRPC's thread -------------------------------------------------------------------------------


class Stream:
    """Carries bytes between a call, on gRPC's thread, and the thread of a connection.

    Args:
        loop: of the connection.
        farewell: what it means when there is nothing more to read.

    Attributes:
        incoming: what has been read, for the connection to take.
        broken: why nothing more can be written; empty if it can.
        ended: why nothing more will be read; empty if it may.
        closed: whether nothing is left of the call.
        connection: whom to tell of changes, if somebody still has it.
        running: what to cancel in order to abort, if it is not enough to stop reading.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, farewell: str) -> None:
        self.loop = loop
        self._farewell = farewell
        self._outgoing: deque[bytes] = deque()
        self._sent = self._written = 0  # bytes, by the connection and to the call
        self._read_so_far = self._taken = 0  # bytes, from the call and by the connection's user
        self._read_ahead = STRANGERS * abc.Connection.receive_limit
        self._finishing = False
        self.incoming: deque[bytes] = deque()
        self.broken = ""
        self.ended = ""
        self.closed = False
        self._reading: asyncio.Task[None] | None = None
        self._told = False  # the connection is going to look
        self._awaited = False  # the connection waits for what is queued to be written
        self._reader_waits = False
        self.connection: Callable[[], GrpcConnection | None] = lambda: None
        self.running: concurrent.futures.Future[None] | None = None

    def begin(self, read: Read, write: Write, finish: Finish) -> None:
        """Begins to read and to write.

        Args:
            read: returns what the peer has written next, or `aio.EOF`.
            write: returns when there is room for more.
            finish: ends the stream after what was written.
        """
        self._home = asyncio.get_running_loop()
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._reading = asyncio.ensure_future(self._read(read))
        self._writing = asyncio.ensure_future(self._write(write, finish))

    async def carry(self) -> None:
        """Goes on until the stream has ended, or is aborted."""
        assert self._reading is not None
        both = {self._reading, self._writing}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            self.ended = self.ended or self._farewell
            self.tell()

    async def _read(self, read: Read) -> None:
        try:
            while (data := await read()) is not aio.EOF:
                self.incoming.append(data)
                self._read_so_far += len(data)
                self.tell()
                while self._reader_must_wait():
                    await self._room.wait()
        except Exception as error:
            self.ended = _broken(error)

    def _reader_must_wait(self) -> bool:
        self._room.clear()
        self._reader_waits = True
        self._reader_waits = self._read_so_far - self._taken > self._read_ahead
        return self._reader_waits

    async def _write(self, write: Write, finish: Finish) -> None:
        try:
            while self._outgoing or not self._finishing:
                if self._outgoing:
                    data = self._next_write()
                    await write(data)
                    self._written += len(data)
                    if self._awaited:
                        self.tell()
                else:
                    self._more.clear()
                    await self._more.wait()
            await finish()
        except Exception as error:  # the connection first gets what has already arrived
            self.broken = _broken(error)
            self.tell()
            await self._home.create_future()

    def _queue(self, writes: Iterable[bytes], finishing: bool = False) -> None:
        self._outgoing.extend(writes)
        self._finishing = self._finishing or finishing
        self._more.set()

    def _next_write(self) -> bytes:
        """Returns as much of what is queued as goes into one write."""
        parts = [self._outgoing.popleft()]
        size = len(parts[0])
        while self._outgoing and size + len(self._outgoing[0]) <= WRITE:
            parts.append(self._outgoing.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def tell(self) -> None:
        """Lets the connection look at what has changed."""
        if self._told:
            return
        self._told = True
        try:
            self.loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # its loop is closed, so nobody has a use for it
            self.abort()

    # On the thread of the connection -------------------------------------------------------------

    def _look(self) -> None:
        self._told = False
        connection = self.connection()
        if connection is not None:
            connection.look()

    def push(self, writes: Iterable[bytes]) -> None:
        """Queues writes, all or none. On any thread, but only on one at a time."""
        batch = list(writes)
        size = sum(map(len, batch))
        self._home.call_soon_threadsafe(self._queue, batch)
        self._sent += size

    def idle(self) -> bool:
        """Whether all that was queued has been written; on any thread."""
        return self._sent == self._written

    def full(self) -> bool:
        """Whether a sender has to wait; the connection is then told when it has not."""
        self._awaited = True
        self._awaited = self._sent - self._written > QUEUE
        return self._awaited

    def take(self, taken: int, read_ahead: int) -> None:
        """Tells how much has been taken in all, and how much may be read besides."""
        self._taken, self._read_ahead = taken, read_ahead
        if self._reader_waits:
            self._home.call_soon_threadsafe(self._room.set)

    def finish(self) -> None:
        """Ends the stream after what is queued."""
        self._home.call_soon_threadsafe(self._queue, (), True)

    def abort(self) -> None:
        """Ends the stream at once. Idempotent; on any thread."""
        if self.running is not None:
            self.running.cancel()
        elif self._reading is not None:
            self._home.call_soon_threadsafe(self._reading.cancel)


def _broken(error: Exception) -> str:
    """Returns why a stream has broken."""
    if isinstance(error, aio.AioRpcError):
        failure: Any = error
        if "ping" in (failure.details() or "").lower():
            return "the peer has not shown a sign of life for too long"
        if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "the peer has sent more at once than it may"
    return "the connection to the peer broke"


# On the thread of the loop that the connection belongs to ----------------------------------------


class GrpcConnection(abc.Connection):
    """Messages over a stream.

    Args:
        known: what `extra` tells.
    """

    max_message_size = MAX_MESSAGE

    def __init__(self, stream: Stream, known: Mapping[str, Any]) -> None:
        self._stream = stream
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._inbox = abc.Inbox(self._loop)
        self._taken_in = 0  # bytes
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._error = ""  # why nothing can be sent any more
        stream.connection = weakref.ref(self)  # a connection that nobody has any more shall end
        self.look()

    def __del__(self) -> None:
        if not self._closed.done():
            self._stream.abort()

    def extra(self, attribute: str, default: Any = None) -> Any:
        return self._known.get(attribute, default)

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        if self._error:
            raise abc.ConnectionLost(self._error)
        sizes = [sum(map(len, segments)) for segments in messages]
        if sizes and max(sizes) > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"{max(sizes)} bytes in one message; at most {MAX_MESSAGE}")
        self._stream.push(pack(messages, sizes))
        while self._stream.full():
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)
            if self._error:
                raise abc.ConnectionLost(self._error)

    def can_send_now(self) -> bool:
        return not self._error and self._stream.idle()

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        self._stream.push(pack(messages, [sum(map(len, segments)) for segments in messages]))

    async def receive(self) -> Sequence[bytes | memoryview]:
        messages = await self._inbox.receive()
        self._read_on()
        return messages

    async def pump(self, take: abc.Take) -> NoReturn:
        self._loop.call_soon(self._read_on)  # when `take` has got what was waiting
        await self._inbox.pump(take)

    def look(self) -> None:
        """Looks at what has happened to the stream."""
        stream = self._stream
        while stream.incoming:
            data = stream.incoming.popleft()
            self._taken_in += len(data)
            if not self._closing:
                self._take_in(data)
        self._read_on()
        if stream.broken:
            self._break(stream.broken)
        if stream.ended and not stream.incoming:
            self._break(stream.ended)
            self._inbox.end(self._error)
        if stream.closed and not self._closed.done():
            self._closed.set_result(None)
        if self._writable is not None and not stream.full():
            self._wake()

    def _take_in(self, data: bytes) -> None:
        messages: list[memoryview] = []
        excess = ""
        try:
            messages.extend(unpack(data, self.receive_limit))
        except (abc.MessageTooLarge, ValueError) as error:
            excess = f"the peer has sent {error}"
        except MemoryError:  # else nothing would be read any more, and nobody told
            excess = "there is no memory left for what the peer has sent"
        self._inbox.put(messages)
        if excess:
            self._abort(excess)

    def _read_on(self) -> None:
        """Lets the stream be read as far as what has arrived is taken."""
        if self._closing:  # to the end, which comes after all that the peer had sent
            self._stream.take(self._taken_in, 1 << 62)
        else:
            ahead = min(READ_AHEAD, STRANGERS * self.receive_limit)
            self._stream.take(self._taken_in - self._inbox.waiting, ahead)

    # Ending -------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._closing:
            self._closing = True
            self._break("the connection was closed")
            self._inbox.end(self._error)
            self._stream.finish()
            self._read_on()
        try:
            for _ in range(LOOKS):
                if not self._closed.done():
                    await asyncio.wait([self._closed], timeout=FLUSH / LOOKS)
        finally:
            self._abort("the connection was closed")  # the loop may be about to close

    def _break(self, reason: str) -> None:
        """Nothing more can be sent."""
        self._error = self._error or reason
        self._wake()

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _abort(self, reason: str) -> None:
        self._closing = True
        self._break(reason)
        self._inbox.end(self._error)
        if not self._closed.done():
            self._closed.set_result(None)
            self._stream.abort()


# Writes ------------------------------------------------------------------------------------------


def pack(messages: Sequence[abc.Segments], sizes: Sequence[int]) -> Iterator[bytes]:
    """Yields the writes for a batch of messages of these sizes."""
    parts: list[abc.Buffer] = []
    total = 0
    for size, segments in zip(sizes, messages, strict=True):
        if total + 4 + size > WRITE:
            yield b"".join(parts)
            parts, total = [], 0
        parts += (_LENGTH.pack(size), *segments)
        total += 4 + size
    if parts:
        yield b"".join(parts)


def unpack(data: bytes, limit: int) -> Iterator[memoryview]:
    """Yields the messages of a write.

    Raises:
        MessageTooLarge: one has more than `limit` bytes.
        ValueError: these are not messages.
    """
    view, position = memoryview(data), 0
    while position < len(data):
        start = position + 4
        size = int.from_bytes(view[position:start], "little")
        if size > limit:
            raise abc.MessageTooLarge(f"a message of {size} bytes; at most {limit}")
        position = start + size
        if position > len(data):
            raise ValueError("part of a message")
        yield view[start:position]
