"""A WebSocket as a pipe of messages."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

from wool import abc
from wool_ws import Options
from wool_ws._framing import FRAME, STRANGERS_FRAME, Malformed, Messages, TooLarge, cut, payloads
from wool_ws._liveness import PROBES, watch
from wool_ws._reading import Reader
from wool_ws._shortcut import Shortcut, shortcut
from wool_ws._sockets import widen

MAX_MESSAGE = 16 << 20
WRITE_BUFFER = 1 << 20
READ_AHEAD = 2 << 20
FLUSH = 1.0
"""Seconds the peer has to take what is queued when the connection is closed."""

LOOKS = 4
"""Parts of these seconds. A process that is stopped for a while loses one, and not all of them."""

STRANGERS_FLOOD = 4096
"""Messages in one read at which a stranger is cut off: even an empty one takes memory."""


class WebSocket(Reader, abc.Connection):
    """A connection on an open WebSocket.

    Args:
        protocol: websockets' side of it, past the handshake.
        transport: the loop's.
        early: frames that have arrived.
        known: what `extra` knows.
        options: say how the peer is looked after.
    """

    max_message_size = MAX_MESSAGE

    def __init__(
        self,
        protocol: Protocol,
        transport: asyncio.Transport,
        early: Iterable[Frame],
        *,
        known: dict[str, Any],
        options: Options,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._transport = transport
        self._known = known
        self._watch = watch(transport, options.keepalive, options.keepalive_timeout)
        self._heartbeat = options.heartbeat
        self._interval = min(options.heartbeat, options.keepalive_timeout / PROBES)
        self._quiet = 0.0  # seconds since something was sent
        self._shortcut: Shortcut | None = None
        self._incoming = Messages()
        self._whole = True  # no WebSocket message has arrived in part
        self._receive_limit = abc.Connection.receive_limit
        self._most = STRANGERS_FRAME  # bytes in a frame, either way
        self._read_ahead = STRANGERS_FRAME
        self._flood = STRANGERS_FLOOD
        self._inbox = abc.Inbox(self._loop)
        self._reading = True
        self._delegation: abc.Delegation | None = None
        self._end = ""  # why nothing more can be sent or received
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None
        self._ticking = self._loop.call_later(self._interval, self._tick)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        transport.set_protocol(self)
        self._handle(early)

    # abc.Connection

    @property
    def receive_limit(self) -> int:
        return self._receive_limit

    @receive_limit.setter
    def receive_limit(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, limit: int
    ) -> None:
        self._receive_limit = limit
        stranger = limit <= abc.Connection.receive_limit
        self._most = STRANGERS_FRAME if stranger else FRAME
        self._read_ahead = STRANGERS_FRAME if stranger else READ_AHEAD
        self._flood = STRANGERS_FLOOD if stranger else sys.maxsize
        self._protocol.max_fragment_size = self._most
        if stranger or self._transport.is_closing():
            return
        self.keep_room()
        widen(self._transport)
        if self._shortcut is None:
            self._shortcut = shortcut(self._transport, masks=self._protocol.side is CLIENT)

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        sizes = [sum(map(len, segments)) for segments in messages]
        if max(sizes, default=0) > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"{max(sizes)} bytes in one message; at most {MAX_MESSAGE}")
        if self._end or self._transport.is_closing():
            raise abc.ConnectionLost(self._end or "the connection is closed")
        # Everything is queued in one go: whoever is cancelled below leaves no half of a message.
        frames = payloads(messages, sizes, self._most)
        for number, payload in enumerate(frames, 1):
            if number == 1:
                self._protocol.send_binary(payload, fin=number == len(frames))
            else:
                self._protocol.send_continuation(payload, fin=number == len(frames))
        self._flush()
        if self._writable is not None:
            await asyncio.shield(self._writable)  # others may be waiting for it
            if self._end:
                raise abc.ConnectionLost(self._end)

    def can_send_now(self) -> bool:
        way = self._shortcut
        return way is not None and way.is_free and not self._end

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        way = self._shortcut
        assert way is not None, "can_send_now says no"
        self._quiet = 0.0
        if not way.send(messages):
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._flush)

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

    def delegate(self, loop: asyncio.AbstractEventLoop, take: abc.TakeSome) -> bool:
        way, whole = self._shortcut, self._whole and not self._protocol.reader.buffer
        if way is None or not whole or not self._reading or self._transport.is_closing():
            return False
        if self._delegation is not None and self._delegation.open:
            return False
        self._read(False)
        try:
            self._delegation = abc.Delegation(
                way.descriptor,
                self._loop,
                loop,
                take,
                cut=self._cut_there,
                resume=self._resume,
                abort=self._transport.abort,
            )
        except (OSError, RuntimeError):
            self._read(True)
        return not self._reading

    @property
    def delegated(self) -> bool:
        return self._delegation is not None and self._delegation.active

    async def aclose(self) -> None:
        self._end_delegation()
        if not self._end:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
            self._finish("the connection is closed")
            self._read(True)  # the peer's answer is behind what it has sent
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    def extra(self, attribute: str, default: Any = None) -> Any:
        return self._known.get(attribute, default)

    # Reader

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._handle(self._protocol.events_received())

    def eof_received(self) -> None:
        self._finish("the peer has closed the connection")

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_delegation()
        self._finish(f"the connection was lost: {exc}" if exc else "the connection was lost")
        self._ticking.cancel()
        if self._delegation is not None:
            self._delegation.shut()
            self._delegation = None
        if self._shortcut is not None:
            self._shortcut.close()
        if self._deadline is not None:
            self._deadline.cancel()
        self.resume_writing()
        if not self._closed.done():
            self._closed.set_result(None)

    # Within

    def _handle(self, events: Iterable[Any]) -> None:
        """Handles what has arrived."""
        messages: list[memoryview] = []
        asked = False
        for frame in events:
            if self._end:
                break
            if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
                self._cut(frame, messages)
            elif frame.opcode is Opcode.TEXT:
                self._refuse(CloseCode.UNSUPPORTED_DATA, "the peer has sent text")
            else:
                asked = True
        if self._protocol.state is not OPEN:
            self._follow_protocol()
        elif asked and self._writable is None:
            self._flush()
        elif asked:
            self._protocol.data_to_send()  # answers to pings of a peer that does not read them
        self._inbox.put(messages)
        if self._inbox.waiting > self._read_ahead and not self._end:
            self._read(False)

    def _cut(self, frame: Frame, messages: list[memoryview]) -> None:
        """Adds to `messages` those that are complete with this frame."""
        limit = self._receive_limit
        self._whole = frame.fin
        try:
            for message in self._incoming.cut(frame.data, limit, last=frame.fin):
                messages.append(message)
                if len(messages) > self._flood:
                    self._refuse(CloseCode.POLICY_VIOLATION, "the peer has sent too many messages")
                    return
        except TooLarge:
            text = f"the peer has sent a message of more than {limit} bytes"
            self._refuse(CloseCode.MESSAGE_TOO_BIG, text)
        except Malformed:
            self._refuse(CloseCode.INVALID_DATA, "the peer has sent something that is no message")

    def _cut_there(self, data: bytes) -> abc.Cut:
        """Cuts what another thread has read for us."""
        masked = self._protocol.side is SERVER
        return abc.Cut(*cut(data, self._receive_limit, masked=masked))

    def _resume(self, left: abc.Cut) -> None:
        """Reads again, behind what has been read elsewhere."""
        self._inbox.put(left.messages)
        self._read(True)
        if left.rest:
            self.data_received(left.rest)

    def _end_delegation(self) -> None:
        if self._delegation is not None:
            self._delegation.end()

    def _read(self, on: bool) -> None:
        """Goes on reading from the socket, or stops."""
        if on is not self._reading and not self._transport.is_closing():
            self._reading = on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _refuse(self, code: CloseCode, text: str) -> None:
        """Ends the connection and tells the peer why."""
        self._protocol.fail(code)
        self._flush()
        self._finish(text)
        self._transport.close()

    def _follow_protocol(self) -> None:
        """Ends the connection if the peer has done so, or has broken the rules of WebSockets."""
        self._flush()
        error = self._protocol.parser_exc
        if error is not None:
            self._finish(f"the peer has broken the rules of WebSockets: {error}")
        elif self._protocol.close_rcvd is not None:
            self._finish("the peer has closed the connection")
        else:
            return  # we have, and wait for its answer
        self._transport.close()

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

    def _flush(self) -> None:
        """Writes what the protocol has to say."""
        way = self._shortcut
        if way is None:
            self._write()
            return
        with way.lock:
            rest, way.rest = way.rest, b""
            if rest and not self._transport.is_closing():
                self._transport.write(rest)
            self._write()

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._transport.is_closing():
                self._transport.write(data)
                self._quiet = 0.0

    def _tick(self) -> None:
        """Looks after the peer, and tells proxies that we are still here."""
        self.spare_room()  # of thousands of peers, most are silent at any time
        if self._watch is not None and self._watch.is_silent():
            self._finish("the peer does not answer any more")
            self._transport.abort()
            return
        self._quiet += self._interval
        idle = not self._end and not self._transport.get_write_buffer_size()
        if idle and self._quiet + self._interval > self._heartbeat:
            self._protocol.send_pong(b"")  # nobody answers it, so that nobody can be late
            self._flush()
        self._ticking = self._loop.call_later(self._interval, self._tick)
