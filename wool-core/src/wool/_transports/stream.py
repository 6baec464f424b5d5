"""Messages over a stream of bytes: the base of connections that the event loop reads and writes.

In the stream a message is `<u32 length, little endian> bytes`. A subclass may wrap the stream into
something else: the transport `ws` puts it into WebSocket frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, cast

from wool import abc
from wool._transports import sockets
from wool._transports.delegation import Delegation

MAX_MESSAGE = 16 << 20
FLUSH = 1.0
"""Seconds the peer has to take what is queued when the connection is closed."""

LOOKS = 4
"""Parts of these seconds. A process that is stopped for a while loses one, and not all of them."""

SCRATCH = 64 << 10
"""Bytes read at once where no large message is under way."""

FLOOD = 4096
"""Messages in one read at which a stranger is cut off: even an empty one takes memory."""

_PREFIX = 4
_prefix = struct.Struct("<I").unpack_from
_JOIN_BELOW = 64 << 10
_WRITE_BUFFER = 1 << 20
_READ_AHEAD = 2 << 20
_READ_AHEAD_OF_STRANGERS = 16 << 10

TakeSome = Callable[[Sequence[bytes | memoryview]], int]
"""Is given messages that have arrived, at least one; returns how many of them it has taken."""


def pack(messages: Sequence[abc.Segments], most: int) -> list[abc.Buffer]:
    """Returns the stream for a batch of messages, in pieces. Large segments are not copied.

    Args:
        most: bytes in a piece; at least 64 KiB.

    Raises:
        MessageTooLarge: a message exceeds `MAX_MESSAGE`.
    """
    pieces: list[abc.Buffer] = []
    small: list[abc.Buffer] = []
    filled = 0
    for segments in messages:
        size = sum(map(len, segments))
        if size <= _JOIN_BELOW - _PREFIX:  # as most are
            if small and filled + size > most - _PREFIX:
                pieces.append(b"".join(small))
                small, filled = [], 0
            small.append(size.to_bytes(_PREFIX, "little"))
            small += segments
            filled += _PREFIX + size
            continue
        if size > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"{size} bytes in one message; at most {MAX_MESSAGE}")
        for part in (size.to_bytes(_PREFIX, "little"), *segments):
            length = len(part)
            large = length >= _JOIN_BELOW
            if small and (large or filled + length > most):
                pieces.append(b"".join(small))
                small, filled = [], 0
            if large:
                view = memoryview(part)
                pieces += [view[at : at + most] for at in range(0, length, most)]
            elif length:
                small.append(part)
                filled += length
    if small:
        pieces.append(b"".join(small))
    return pieces


class Cutter:
    """Cuts a stream into messages.

    A stream is read into memory that is there already; what belongs to a large message, to where it
    is to stay. (`asyncio.Protocol` would take 256 KiB from the system for each read, and give most
    of them back.)

    Args:
        scratch: bytes read at once where no large message is under way.

    Attributes:
        fault: what is wrong with the stream, once something is; nothing more is cut from then on.
    """

    __slots__ = ("_body", "_filled", "_kept", "_scratch", "fault")

    def __init__(self, scratch: int = SCRATCH) -> None:
        self.fault = ""
        self._scratch = memoryview(bytearray(scratch))
        self._kept = 0  # bytes of an incomplete prefix, at the beginning of the scratch
        self._body: memoryview | None = None
        self._filled = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing incomplete has been taken."""
        return self._body is None and not self._kept

    def room(self) -> memoryview:
        """Returns where the next bytes are to be written; not empty."""
        if self._body is None:
            return self._scratch[self._kept :]
        return self._body[self._filled :]

    def took(self, count: int, limit: int) -> list[bytes | memoryview]:
        """Takes note of `count` new bytes; returns the messages that are complete.

        Args:
            limit: the largest message in bytes to accept.
        """
        if self._body is not None:
            self._filled += count
            if self._filled < len(self._body):
                return []
            body, self._body = self._body, None
            return [body]
        messages: list[bytes | memoryview] = []
        scratch, at, end = self._scratch, 0, self._kept + count
        self._kept = 0
        while end - at >= _PREFIX and not self.fault:
            (size,) = _prefix(scratch, at)
            at += _PREFIX
            if size > limit:
                self.fault = f"the peer has sent a message of more than {limit} bytes"
            elif size > end - at:
                self._body = memoryview(bytearray(size))
                self._filled = end - at
                self._body[: self._filled] = scratch[at:end]
                return messages
            else:
                messages.append(scratch[at : at + size].tobytes())
                at += size
        if not self.fault:
            self._kept = end - at
            scratch[: self._kept] = bytes(scratch[at:end])
        return messages

    def cut(self, data: abc.Buffer, limit: int) -> list[bytes | memoryview]:
        """The same for bytes that have been read elsewhere."""
        view = memoryview(data)
        messages: list[bytes | memoryview] = []
        while view and not self.fault:
            end = _PREFIX + int.from_bytes(view[:_PREFIX], "little")
            if end <= len(view) and end - _PREFIX <= limit and self.is_empty:
                messages.append(view[_PREFIX:end])  # a whole message, as most are
                view = view[end:]
                continue
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            messages += self.took(count, limit)
            view = view[count:]
        return messages


class StreamConnection(asyncio.BufferedProtocol, abc.Connection):
    """Messages over a stream: `connection_made` and then `opened`, which a subclass calls.

    Small messages may leave from any thread, past the loop: an answer is made on the thread of
    user code, and its caller waits for it. In the same way another thread may read, see `delegate`.

    Attributes:
        attached: whether the loop has begun with it.
    """

    max_message_size = MAX_MESSAGE
    piece = 1 << 20
    """Bytes written at once, at most."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self.attached: bool = False
        self._known: dict[str, Any] = {}
        self._inbox = abc.Inbox(self._loop)
        self._cutter = Cutter()
        self._reading = True
        self._delegation: Delegation | None = None
        self._not_taken: Sequence[bytes | memoryview] = ()  # by the thread that has read it
        self._lock = threading.Lock()  # of what is written, by whatever thread
        self._socket: socket.socket | None = None
        self._rest = b""  # could not be written from another thread; goes before anything else
        self._writable: asyncio.Future[None] | None = None
        self._end = ""  # why nothing more can be sent or received
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """The stream carries messages from now on."""
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        if self._transport.get_extra_info("sslcontext") is None:
            sock = self._transport.get_extra_info("socket")
            sockets.widen(sock)
            # One of our own: the loop may close its one, and the descriptor be given to another
            # connection, while another thread is in `send_now`.
            with contextlib.suppress(OSError):  # no more files may be open: nothing is sent so
                self._socket = sockets.duplicate(sock)

    def extra(self, attribute: str, default: Any = None) -> Any:
        return self._known.get(attribute, default)

    # For a subclass that wraps the stream ---------------------------------------------------------

    def _wrap(self, pieces: Sequence[abc.Buffer]) -> Sequence[abc.Buffer]:
        """Returns what is to be written for pieces of the stream, and besides; holds the lock."""
        return pieces

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._cutter.room()

    def _unwrap(self, count: int) -> list[bytes | memoryview]:
        """Returns the messages that are complete with `count` bytes more in the buffer.

        It runs on whatever thread has read them, so it leaves what else there is to `_settle`.
        """
        return self._cutter.took(count, self.receive_limit)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing incomplete has arrived, and nothing that concerns `_settle`."""
        return self._cutter.is_empty and not self._cutter.fault

    def _settle(self) -> None:
        """Does what there is to do after something has arrived, besides giving messages."""
        if self._cutter.fault and not self._end:
            self._refuse(self._cutter.fault)

    def _refuse(self, text: str) -> None:
        """Ends the connection as the peer has done wrong."""
        self._finish(text)
        self.abort()

    def _begin_to_close(self) -> None:
        """Closes once what is queued has been sent."""
        self._transport.close()

    # Sending --------------------------------------------------------------------------------------

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        pieces = pack(messages, self.piece)
        if self._end or self._transport.is_closing():
            raise abc.ConnectionLost(self._end or "the connection is closed")
        # Everything is queued in one go: whoever is cancelled below leaves no half of a message.
        self._write(pieces)
        if self._writable is not None:
            await asyncio.shield(self._writable)  # others may be waiting for it
            if self._end:
                raise abc.ConnectionLost(self._end)

    def can_send_now(self) -> bool:
        return (
            self._socket is not None
            and not self._end
            and not self._rest
            and not self._transport.get_write_buffer_size()
        )

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        pieces = pack(messages, self.piece)
        with self._lock:
            data, written = b"".join(self._wrap(pieces)), 0
            if self._socket is None:
                return  # the connection is gone, as `receive` finds out
            # Else the loop has had something to say meanwhile.
            if not self._rest and not self._transport.get_write_buffer_size():
                try:
                    written = self._socket.send(data)
                except BlockingIOError:
                    pass
                except OSError:
                    return  # likewise
            if written == len(data):
                return
            self._rest += data[written:]
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._write)

    def _write(self, pieces: Sequence[abc.Buffer] = ()) -> None:
        """Has the loop write, unless it has found the peer gone: it complains of more."""
        with self._lock:
            for data in (self._rest, *self._wrap(pieces)):
                if data and not self._transport.is_closing():
                    self._transport.write(data)
            self._rest = b""  # not before: another thread would send in between

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Receiving ------------------------------------------------------------------------------------

    async def receive(self) -> Sequence[bytes | memoryview]:
        messages = await self._inbox.receive()
        self._read(True)
        return messages

    async def pump(self, take: abc.Take) -> NoReturn:
        self._read(True)
        try:
            await self._inbox.pump(take)
        finally:
            self._end_delegation()

    def buffer_updated(self, nbytes: int) -> None:
        self._give(self._unwrap(nbytes))

    def _give(self, messages: Sequence[bytes | memoryview]) -> None:
        if len(messages) > FLOOD and self._is_stranger:
            self._cutter.fault = "the peer has sent too many messages"
            messages = messages[:FLOOD]
        self._inbox.put(messages)
        self._settle()
        if waiting := self._inbox.waiting:  # else somebody pumps
            ahead = _READ_AHEAD_OF_STRANGERS if self._is_stranger else _READ_AHEAD
            if waiting > ahead and not self._end:
                self._read(False)

    @property
    def _is_stranger(self) -> bool:
        return self.receive_limit <= abc.Connection.receive_limit

    def _read(self, on: bool) -> None:
        """Goes on reading from the stream, or stops."""
        if on is not self._reading and not self._transport.is_closing():
            self._reading = on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # Receiving on another thread ------------------------------------------------------------------

    def delegate(self, loop: asyncio.AbstractEventLoop, take: TakeSome) -> bool:
        """Has what arrives read on the thread of another loop; returns whether that is done.

        The thread that waits for messages is woken once for each instead of twice. Called while
        `pump` runs, also from what it calls. From then on `take` is called on that thread with what
        arrives, and returns how many messages it has taken. The rest of them, and all that follows,
        is given to `pump`, until this is called again. So is what arrives when a message is
        incomplete, and when the delegation has ended by itself.

        Order is kept, and nothing is lost. `take` is never running, nor called any more, while
        `pump` gives something and once it has ended.
        """
        sock, past = self._socket, self._delegation
        if sock is None or not self._reading or self._end or self._transport.is_closing():
            return False
        if not self._is_plain or (past is not None and past.open):
            return False
        self._read(False)
        try:
            own = sockets.duplicate(sock)  # closing one that another loop waits for confuses that
        except OSError:
            self._read(True)
            return False
        try:
            self._delegation = Delegation(
                own,
                self._loop,
                loop,
                read=partial(self._read_there, take),
                resume=self._resume,
                abort=self.abort,
            )
        except RuntimeError:
            own.close()
            self._read(True)
            return False
        return True

    @property
    def delegated(self) -> bool:
        """Whether another loop's thread reads; for the thread of the connection's."""
        return self._delegation is not None and self._delegation.active

    def _read_there(self, take: TakeSome, sock: socket.socket) -> bool:
        """Reads on the other thread; returns whether to go on with that."""
        try:
            count = sock.recv_into(self.get_buffer(-1))
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno is None:  # it is none of the system's
                raise
            return False  # as the connection finds out when it reads again
        messages = self._unwrap(count) if count else []
        taken = take(messages) if messages else 0
        self._not_taken = messages[taken:]
        return count > 0 and taken == len(messages) and self._is_plain

    def _resume(self) -> None:
        """Reads again, behind what has been read elsewhere."""
        self._read(True)
        left, self._not_taken = self._not_taken, ()
        self._give(left)

    def _end_delegation(self) -> None:
        if self._delegation is not None:
            self._delegation.end()

    # The end --------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        self._end_delegation()
        if not self._end:
            self._begin_to_close()
            self._finish("the connection is closed")
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Closes at once."""
        if self.attached:
            self._transport.abort()

    def _finish(self, reason: str) -> None:
        """Lets nothing more in or out, and whoever waits know; what is queued may still leave."""
        if not self._end:
            self._end = reason
            self._give_up(LOOKS)
            self._inbox.end(reason)
            self.resume_writing()

    def _give_up(self, looks: int) -> None:
        """Aborts soon, if the peer does not take what is queued."""
        if looks:
            self._deadline = self._loop.call_later(FLUSH / LOOKS, self._give_up, looks - 1)
        else:
            self._transport.abort()

    def release(self) -> None:
        """Closes the socket of our own."""
        with self._lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def __del__(self) -> None:
        self.release()  # its loop was closed, and told nobody

    # asyncio.BaseProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.attached = True
        self._known = sockets.facts(transport)

    def eof_received(self) -> None:
        self._finish("the peer has closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_delegation()
        if exc is not None and not self._end:
            self._read_rest()
        self.release()
        if self._delegation is not None:
            self._delegation.shut()
            self._delegation = None
        self._finish(f"the connection was lost: {exc}" if exc else "the connection was lost")
        if self._deadline is not None:
            self._deadline.cancel()
        self.resume_writing()
        if not self._closed.done():
            self._closed.set_result(None)

    def _read_rest(self) -> None:
        """Reads what the peer sent before it closed: the loop reads no more once a write fails."""
        left = _READ_AHEAD  # as much as a socket holds: a peer may go on sending for ever
        with contextlib.suppress(OSError):
            while left > 0 and self._socket is not None and not self._end:
                count = self._socket.recv_into(self.get_buffer(-1))
                if not count:
                    return
                left -= count
                self.buffer_updated(count)
