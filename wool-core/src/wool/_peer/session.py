"""A session pumps the protocol over a connection: one task reads, one writes.

It lives on one event loop. Frames that are sent during one turn of the loop leave in one batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from wool import abc
from wool._peer import background, sharing
from wool._protocol import frames as f
from wool._protocol.connection import Machine
from wool._protocol.frames import Buffer, Frame
from wool._transports.stream import StreamConnection
from wool.exceptions import ConnectionLost, ProtocolError, WoolError

T = TypeVar("T")

BATCH = 1 << 20
"""Bytes handed to the transport at once: what a small message may have to wait behind."""

MOST_KNOWN = 1 << 17
"""So many pieces of code are remembered as those that a peer has."""

OnFrame = Callable[[Frame, Sequence[Buffer]], None]
Suits = Callable[[Frame], bool]
OnLost = Callable[[Exception], None]
Linger = Callable[[], bool]

SMALL = 32 << 10
"""Bytes of payload up to which a frame may bypass the writer."""

FLUSH = 1.0
"""Seconds the last messages may take."""

LINGER = 10.0
"""Seconds a session may go on after its task was cancelled."""


class Session:
    """An authenticated connection to a peer.

    Args:
        connection: the pipe, past its handshake.
        machine: the protocol's state.
        peer: what the peer said of itself.
        early: messages that came with the last one of the handshake.

    Attributes:
        known: keys of the code that the peer has, as far as that is remembered.
    """

    def __init__(
        self,
        connection: abc.Connection,
        machine: Machine,
        peer: f.Hello,
        early: Sequence[bytes | memoryview] = (),
    ) -> None:
        self.connection = connection
        self.machine = machine
        self.peer = peer
        self.known: set[bytes] = set()
        self._early = early
        self._loop = asyncio.get_running_loop()
        self._wanted: asyncio.Future[None] | None = None
        self._lost = False
        self._lock = threading.Lock()  # of the machine, for `send_now` on another thread
        self._resting = False  # the writer has nothing to do, and has not been woken
        self._failure: ConnectionLost | None = None  # of the writer, of which nothing else tells
        self._closing: asyncio.Task[None] | None = None
        self._delegate: Callable[[], object] | None = None  # for when all has been taken
        self._sharing = sharing.between(connection, self._lock, machine, self.send)

    def note_known(self, key: bytes, provides: Iterable[bytes]) -> None:
        """Remembers that the peer has a piece of code, and what else that makes known there.

        Programs may make functions without end. When there are too many all are forgotten: those
        that are used again are sent again.
        """
        if len(self.known) >= MOST_KNOWN:
            self.known.clear()
        self.known.add(key)
        self.known.update(provides)

    def lacking(self, code: Mapping[bytes, T]) -> dict[bytes, T]:
        """Returns what of some code, by its keys, the peer neither has nor has made."""
        known, origin = self.known, self.peer.process
        return {k: v for k, v in code.items() if k not in known and not k.startswith(origin)}

    def send(self, frame: Frame, segments: Sequence[Buffer] = ()) -> bool:
        """Queues a frame; False if the call it is about, or the session, has ended."""
        with self._lock:
            if self._lost:
                return False
            sent = self.machine.send(frame, segments)
            if self._resting:
                self.wake()
        return sent

    def put(self, frame: Frame) -> None:
        """Queues a frame, on any thread, before those that are sent later; then `wake` is due."""
        with self._lock:
            if not self._lost:
                self.machine.send(frame)
                self._resting = False

    def send_now(self, frame: Frame, segments: Sequence[Buffer] = ()) -> bool:
        """Transmits a small frame at once, from any thread, past the writer if that has a rest.

        Returns False, and does nothing, if that is not possible now.
        """
        if sum(map(len, segments)) > SMALL:
            return False
        with self._lock:
            if not self._resting or self._lost or not self.connection.can_send_now():
                return False
            self.machine.send(frame, segments)
            self.connection.send_now(self.machine.outgoing(BATCH))
            return True

    async def run(self, on_frame: OnFrame, on_lost: OnLost, linger: Linger = lambda: False) -> None:
        """Pumps until the connection ends or this is cancelled; then calls `on_lost` once.

        Args:
            linger: asked when this is cancelled, and again after each batch that arrives, whether
                the session is still needed; for `LINGER` seconds it goes on while that is so.
        """
        writer = background.start(self._loop, self._write())
        error: Exception = ConnectionLost("the session was closed")
        try:
            try:
                await self._read(on_frame)
            except asyncio.CancelledError:
                if linger():
                    await self._go_on(on_frame, linger)
                raise
        except (WoolError, OSError) as failure:
            error = self._failure or failure
        finally:
            with self._lock:
                self._lost = True
            if not self._loop.is_closed():  # else nobody waits, and nothing can be awaited
                writer.cancel()
                try:
                    await asyncio.gather(writer, return_exceptions=True)
                    await self._send_rest()
                finally:
                    on_lost(error)
                    await self.connection.aclose()
                    if self._sharing is not None:
                        self._sharing.close()

    async def _send_rest(self) -> None:
        """Sends what is queued when the session ends from this side, if the peer takes it soon."""
        with contextlib.suppress(WoolError, OSError, TimeoutError):
            async with asyncio.timeout(FLUSH):
                while self.machine.has_outgoing:
                    if batch := self.machine.outgoing(BATCH):
                        await self.connection.send(batch)

    async def _go_on(self, on_frame: OnFrame, linger: Linger) -> None:
        """Pumps as long as the session is needed."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        writer = background.start(self._loop, self._write())
        self._lost = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while linger():
                    self._take(on_frame, await self.connection.receive())
        writer.cancel()

    async def _read(self, on_frame: OnFrame) -> None:
        early, self._early = self._early, ()
        self._take(on_frame, early)
        await self.connection.pump(partial(self._take_pumped, on_frame))

    def _take_pumped(self, on_frame: OnFrame, messages: Sequence[bytes | memoryview]) -> None:
        self._take(on_frame, messages)
        if self._delegate is not None:
            delegate, self._delegate = self._delegate, None
            delegate()

    def _take(self, on_frame: OnFrame, messages: Sequence[bytes | memoryview]) -> None:
        for message in messages:
            received, payload = f.decode_call(message)
            with self._lock:
                events = self.machine.receive(received, payload)
            for frame, segments in events:
                on_frame(frame, segments)
        if self._resting and self.machine.has_outgoing:
            self.wake()  # credit, or an answer the machine gave by itself

    def delegate(self, loop: asyncio.AbstractEventLoop, suits: Suits, on_frame: OnFrame) -> None:
        """Has frames taken on the thread of another loop, where that is possible, as they arrive.

        Called from within `on_frame`. It goes on until one does not suit, or reading is taken back.

        Args:
            suits: whether a frame can be taken there; not if it carries code or references.
            on_frame: takes it there; must not fail.
        """
        take = partial(self._take_there, suits, on_frame)
        if isinstance(self.connection, StreamConnection):  # no other one promises that
            self._delegate = partial(self.connection.delegate, loop, take)

    def _take_there(
        self, suits: Suits, on_frame: OnFrame, messages: Sequence[bytes | memoryview]
    ) -> int:
        for number, message in enumerate(messages):
            try:
                frame, payload = f.decode_call(message)
                if not suits(frame):
                    return number
                with self._lock:
                    events = self.machine.receive(frame, payload)
            except ProtocolError:
                return number  # it comes once more, and then ends the session
            for event in events:
                on_frame(*event)
        return len(messages)

    def fail(self, error: BaseException) -> None:
        """Ends the connection, as something cannot be sent that the peer waits for."""
        if not self._lost:
            self._lost = True
            self._failure = ConnectionLost(f"nothing can be sent any more: {error!r}")
            self._closing = background.start(self._loop, self.connection.aclose())

    def wake(self) -> None:
        """Makes the writer look for something to transmit."""
        self._resting = False
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def _write(self) -> None:
        send = self.connection.send
        try:
            while True:
                with self._lock:
                    batch = self.machine.outgoing(BATCH)
                    self._resting = not batch and not self.machine.has_outgoing
                    if self._resting:
                        self._wanted = self._loop.create_future()
                if batch:
                    await send(batch)
                elif self._wanted is not None:
                    await self._wanted
                    self._wanted = None
                else:  # a payload is being copied to shared memory
                    await asyncio.sleep(0)
        except ConnectionLost:
            # The reader learns of it as well, and first gets what has already arrived.
            self._lost = True
        except Exception as error:  # a lack of memory, say: the reader may learn nothing
            self.fail(error)
        finally:
            self._resting = False
