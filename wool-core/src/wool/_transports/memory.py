"""Transport `memory`: workers inside this process, for the debugger and for fast tests.

Each end belongs to the event loop that made it; ends of one connection usually live in different
threads. Messages are copied, so that nothing is shared by accident.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from wool import abc
from wool._msgspec import Struct
from wool.plugins import API, TransportPlugin, hookimpl

MAX_MESSAGE = 16 << 20
_HIGH_WATER = 4 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """The transport has no settings."""


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport."""
    yield TransportPlugin(
        name="memory",
        api=API,
        options=Options,
        factory=lambda _: MemoryTransport(),
        capabilities=frozenset({"local", "in-process"}),
    )


class MemoryTransport(abc.Transport):
    """Connects threads of one process. Addresses are known to one instance only."""

    def __init__(self) -> None:
        self._listeners: dict[str, _MemoryListener] = {}
        self._numbers = count(1)

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        listener = self._listeners.get(address)
        if listener is None:
            raise abc.ConnectFailed(f"nobody listens at {address}", reason="refused")
        here, there = _Channel(), _Channel()
        mine = _MemoryConnection(there, here)
        if not listener.accept(_Half(here, there)):
            raise abc.ConnectFailed(f"{address} has just closed", reason="refused")
        return mine

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        address = address or f"memory://{next(self._numbers)}"
        if address in self._listeners:
            raise abc.ConnectFailed(f"somebody listens at {address} already")

        def forget() -> None:
            self._listeners.pop(address, None)

        listener = self._listeners[address] = _MemoryListener(address, forget)
        return listener


class _Channel:
    """One direction: a queue, and whom to wake at either end.

    `wake_reader` and `wake_writer` may be called from any thread.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # collecting a connection may close its channels anywhere
        self.messages: deque[bytes] = deque()
        self.size = 0
        self.closed = False
        self.wake_reader: Callable[[], None] = lambda: None
        self.wake_writer: Callable[[], None] = lambda: None

    def put(self, messages: Iterable[bytes]) -> bool:
        """Adds messages; returns whether there is room for more."""
        with self.lock:
            if self.closed:
                raise abc.ConnectionLost("the peer closed the connection")
            for message in messages:
                self.messages.append(message)
                self.size += len(message)
            room = self.size < _HIGH_WATER
        self.wake_reader()
        return room

    def take(self) -> list[bytes]:
        """Removes and returns all messages."""
        with self.lock:
            messages = list(self.messages)
            self.messages.clear()
            full, self.size = self.size >= _HIGH_WATER, 0
        if full:
            self.wake_writer()
        return messages

    def close(self) -> None:
        with self.lock:
            self.closed = True
        self.wake_reader()
        self.wake_writer()


class _Half(Struct, frozen=True):
    """The acceptor's end before its loop has picked it up."""

    outgoing: _Channel
    incoming: _Channel


class _Waker:
    """Wakes a task of one loop from any thread; a wake-up that comes early is kept."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def __call__(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            pass  # that loop is closed: nobody waits there any more

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


class _MemoryConnection(abc.Connection):
    max_message_size = MAX_MESSAGE

    def __init__(self, outgoing: _Channel, incoming: _Channel) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._readable = incoming.wake_reader = _Waker()
        self._writable = outgoing.wake_writer = _Waker()

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        whole = [b"".join(segments) for segments in messages]
        if max(map(len, whole), default=0) > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"at most {MAX_MESSAGE} bytes in one message")
        room = self._outgoing.put(whole)
        while not room:
            await self._writable.wait()
            room = self._outgoing.closed or self._outgoing.size < _HIGH_WATER

    async def receive(self) -> Sequence[bytes | memoryview]:
        while True:
            closed = self._incoming.closed  # what was sent before that can be taken now
            messages = self._incoming.take()
            if max(map(len, messages), default=0) > self.receive_limit:
                await self.aclose()
                messages, closed = [], True
            if messages:
                return messages
            if closed:
                raise abc.ConnectionLost("the peer closed the connection")
            await self._readable.wait()

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        self._outgoing.close()
        self._incoming.close()

    def __del__(self) -> None:
        self._close()  # its loop was closed, and told nobody

    def extra(self, attribute: str, default: Any = None) -> Any:
        if attribute == "uid" and hasattr(os, "geteuid"):
            return os.geteuid()  # both ends are this process
        return {"peer": "memory", "same_host": True}.get(attribute, default)


class _MemoryListener(abc.Listener):
    def __init__(self, address: str, forget: Callable[[], None]) -> None:
        self.address = address
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._arrived: asyncio.Queue[_Half] = asyncio.Queue()

    def accept(self, half: _Half) -> bool:
        """Hands a connection to the listener's loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._arrive, half)
        except RuntimeError:  # its loop is closed
            return False
        return True

    def _arrive(self, half: _Half) -> None:
        if self._closed:
            half.outgoing.close()
            half.incoming.close()
        else:
            self._arrived.put_nowait(half)

    async def serve(self, handler: abc.Handler) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def handle(half: _Half) -> None:
            connection = _MemoryConnection(half.outgoing, half.incoming)
            try:
                await handler(connection)
            finally:
                await connection.aclose()

        try:
            while True:
                task = self._loop.create_task(handle(await self._arrived.get()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            await self.aclose()
            self._closed = True
            while not self._arrived.empty():
                half = self._arrived.get_nowait()
                half.outgoing.close()
                half.incoming.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        self._forget()
