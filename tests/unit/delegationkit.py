"""Helpers for tests of delegated reading: another thread, and both ends of a connection."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from support.waiting import until
from wool._transports.stream import StreamConnection
from wool.abc import ConnectionLost


class Elsewhere:
    """A loop that runs on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._freed = threading.Event()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def block(self) -> None:
        """Has the thread do something else until it is freed."""
        blocked = threading.Event()

        def wait() -> None:
            blocked.set()
            self._freed.wait()

        self._freed.clear()
        self.loop.call_soon_threadsafe(wait)
        await asyncio.to_thread(blocked.wait)

    def let(self) -> None:
        """Lets it go on."""
        self._freed.set()

    async def free(self) -> None:
        """Lets it go on; returns when it has done what it was told before."""
        self.let()
        done = threading.Event()
        self.loop.call_soon_threadsafe(done.set)
        await asyncio.to_thread(done.wait)

    async def close(self) -> None:
        await self.free()
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._thread


@asynccontextmanager
async def elsewhere() -> AsyncGenerator[Elsewhere, None]:
    """Another loop, on another thread."""
    other = Elsewhere()
    try:
        yield other
    finally:
        await other.close()


Ends = tuple[StreamConnection, StreamConnection]


class Split:
    """Pumps a connection, and has it delegated; notes what is given where.

    Attributes:
        messages: all that was given.
        there: how many of them the other thread has taken.
        choosy: whether some messages are not taken by the other thread.
    """

    def __init__(self, connection: StreamConnection, other: Elsewhere) -> None:
        self.messages: list[bytes] = []
        self.there = 0
        self.choosy = False
        self.connection = connection
        self._other = other
        self._busy = threading.Lock()
        self._luck = random.Random(7)
        self.pumping = asyncio.ensure_future(connection.pump(self._take))

    async def given(self, count: int) -> None:
        """Waits until so many messages have been given."""
        await until(lambda: len(self.messages) >= count)

    def delegate(self) -> bool:
        return self.connection.delegate(self._other.loop, self._take_there)

    async def begin(self) -> None:
        """Delegates, which may take until the other thread has done with the last time."""
        await asyncio.sleep(0)
        assert not self.connection.delegated
        await until(self.delegate)
        assert self.connection.delegated

    async def stop(self) -> None:
        self.pumping.cancel()
        await asyncio.gather(self.pumping, return_exceptions=True)

    async def lost(self) -> None:
        """Waits until the pump says that the connection has ended."""
        async with asyncio.timeout(30):
            try:
                await self.pumping
            except ConnectionLost:
                return

    def _take(self, messages: Sequence[bytes | memoryview]) -> None:
        assert self._busy.acquire(blocking=False), "both threads are given messages at once"
        assert not self._other.is_here, "pump gives messages on the other thread"
        self.messages += [bytes(message) for message in messages]
        self._busy.release()

    def _take_there(self, messages: Sequence[bytes | memoryview]) -> int:
        assert self._busy.acquire(blocking=False), "both threads are given messages at once"
        assert self._other.is_here, "what was delegated is given on another thread"
        assert messages, "nothing was given"
        count = len(messages)
        if self.choosy:
            count = self._luck.choice((count, count, count, count // 2, 0))
        self.messages += [bytes(message) for message in messages[:count]]
        self.there += count
        self._busy.release()
        return count
