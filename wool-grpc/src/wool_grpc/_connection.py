"""A connection: messages over the stream of a call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from wool import abc
from wool_grpc._calls import EOF, Call
from wool_grpc._errors import broken
from wool_grpc._framing import MAX_MESSAGE, WRITE, Assembler, cut
from wool_grpc._loops import Operation, at_once

QUEUE = 1 << 20
"""Bytes that may be on their way before `send` waits."""

READ_AHEAD = 2 << 20
"""Bytes that may wait for `receive`. What a stranger may have here is less: see `_on_read`."""

STRANGERS_READS = 64
"""What a peer may write before it has authenticated itself, which takes two or three writes: gRPC
would go on taking in as much as its window allows while we read."""

FLUSH = 1.0
"""Seconds the peer has to take what is queued when the connection is closed."""

LOOKS = 4
"""Parts of these seconds. A process that is stopped for a while loses one, and not all of them."""


class GrpcConnection(abc.Connection):
    """Messages over the stream of a call.

    Reads and writes are operations of their own, not part of `receive` and `send`: gRPC would break
    the stream if one of those were cancelled.

    Args:
        known: what `extra` tells.
    """

    max_message_size = MAX_MESSAGE

    def __init__(self, call: Call, known: Mapping[str, Any]) -> None:
        self._call = call
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._incoming = Assembler()
        self._inbox = abc.Inbox(self._loop)
        self._reading = True
        self._reads = 0  # before the peer was authenticated
        self._outgoing: deque[bytes] = deque()
        self._queued = 0  # bytes in _outgoing and in the write under way
        self._writing = 0  # bytes in the write under way
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._error = ""  # why nothing can be sent any more
        self._ended = False  # whether nothing more will arrive
        # A stream that nobody has a use for shall end, so what gRPC holds must not hold this.
        self._self = weakref.ref(self)
        self._read()

    def __del__(self) -> None:
        if not self._closed.done():
            try:
                self._loop.call_soon_threadsafe(self._call.abort)
            except RuntimeError:  # the loop is closed
                self._call.abort()

    def extra(self, attribute: str, default: Any = None) -> Any:
        return self._known.get(attribute, default)

    # Sending ------------------------------------------------------------------------------------

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        if self._error:
            raise abc.ConnectionLost(self._error)
        sizes = [sum(map(len, segments)) for segments in messages]
        if sizes and max(sizes) > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"{max(sizes)} bytes in one message; at most {MAX_MESSAGE}")
        for data in cut(messages, sizes):
            self._outgoing.append(data)
            self._queued += len(data)
        if not self._writing and self._outgoing:
            self._write()
        while self._queued > QUEUE:
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)
            if self._error:
                raise abc.ConnectionLost(self._error)

    def can_send_now(self) -> bool:
        idle = not (self._writing or self._outgoing or self._error)
        return idle and (self._call.open_to_threads or threading.get_ident() == self._thread)

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        for data in cut(messages, [sum(map(len, segments)) for segments in messages]):
            self._outgoing.append(data)
            self._queued += len(data)
        if self._outgoing:
            here = threading.get_ident() == self._thread
            self._write(at_once if here else self._call_back)

    def _call_back(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *args)

    def _write(self, call: Callable[..., object] = at_once) -> None:
        """Writes what is queued, as much as goes into one write.

        Args:
            call: as `Operation` has it.
        """
        queue = self._outgoing
        data = queue.popleft()
        if queue and len(data) + len(queue[0]) <= WRITE:
            parts, size = [data], len(data)
            while queue and size + len(queue[0]) <= WRITE:
                size += len(queue[0])
                parts.append(queue.popleft())
            data = b"".join(parts)
        self._writing = len(data)
        Operation(self._call.write(data), self._self, GrpcConnection._on_written, call)

    def _on_written(self, result: None, error: BaseException | None) -> None:
        self._queued -= self._writing
        if error is None and self._outgoing:
            self._write()
        else:
            self._writing = 0  # from now on another thread may write
        if error is not None:
            # Whoever receives learns why, and first gets what has already arrived.
            self._break(broken(error))
            if self._closing:
                self._abort()
        elif self._closing and not self._writing:
            self._finish()
        if self._writable is not None and self._queued <= QUEUE:
            _wake(self._writable)
            self._writable = None

    # Receiving ----------------------------------------------------------------------------------

    async def receive(self) -> Sequence[bytes | memoryview]:
        messages = await self._inbox.receive()
        self._read_on()
        return messages

    async def pump(self, take: abc.Take) -> NoReturn:
        self._read_on()
        await self._inbox.pump(take)

    def _read_on(self) -> None:
        """Reads again, if too much had been waiting."""
        if not self._reading and not self._ended:
            self._read()

    def _read(self) -> None:
        self._reading = True
        Operation(self._call.read(), self._self, GrpcConnection._on_read)

    def _on_read(self, data: Any, error: BaseException | None) -> None:
        if error is not None or data is EOF:
            self._end(self._call.farewell if error is None else broken(error))
            return
        if not self._closing and not self._take_in(data):
            return
        # Until the peer has authenticated itself, little is read ahead.
        if self._closing or self._inbox.waiting <= min(READ_AHEAD, 16 * self.receive_limit):
            self._loop.call_soon(self._read)  # whoever receives goes first
        else:
            self._reading = False

    def _take_in(self, data: bytes) -> bool:
        """Returns whether the peer may go on."""
        if self.receive_limit <= abc.Connection.receive_limit:
            self._reads += 1
            if self._reads > STRANGERS_READS:
                self._end("the peer has sent too many messages")
                return False
        messages: list[memoryview] = []
        excess = ""
        try:
            messages.extend(self._incoming.feed(data, self.receive_limit))
        except abc.MessageTooLarge as error:
            excess = f"the peer has sent {error}"
        except MemoryError:  # else nothing would be read any more, and nobody told
            excess = "there is no memory left for what the peer has sent"
        self._inbox.put(messages)
        if excess:
            self._end(excess)
        return not excess

    # Ending -------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._closing:
            self._closing = True
            self._break("the connection was closed")
            self._inbox.end(self._error)
            if not self._writing and not self._closed.done():
                self._finish()
            if not self._reading and not self._ended:
                self._read()  # to the end, which comes after all that the peer had sent
        if self._closed.done():
            return
        self._give_up(LOOKS)
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self._abort()  # the loop may be about to close
            raise
        finally:
            self._giving_up.cancel()

    def _give_up(self, looks: int) -> None:
        """Aborts soon, if the peer does not take what is queued."""
        if looks:
            self._giving_up = self._loop.call_later(FLUSH / LOOKS, self._give_up, looks - 1)
        elif not self._closed.done():
            self._abort()

    def _finish(self) -> None:
        Operation(self._call.finish(), self._self, GrpcConnection._on_finished)

    def _on_finished(self, result: None, error: BaseException | None) -> None:
        self._abort()

    def _break(self, reason: str) -> None:
        """Nothing more can be sent."""
        self._error = self._error or reason
        _wake(self._writable)
        self._writable = None

    def _end(self, reason: str) -> None:
        """Nothing more will arrive either."""
        self._ended = True
        self._break(reason)
        self._inbox.end(self._error)
        if not self._closing:
            self._abort()

    def _abort(self) -> None:
        self._ended = True
        self._outgoing.clear()
        self._break("the connection was closed")
        self._inbox.end(self._error)
        if not self._closed.done():
            self._closed.set_result(None)
            self._call.abort()


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
