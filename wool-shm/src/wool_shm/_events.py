"""Events on their way from the thread that watches to the event loop of a watcher."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from wool.abc import Event

MOST = 10_000
"""So many events are kept for a watcher that does not take them; then it gets a snapshot."""


class Events(AsyncIterator[Event]):
    """What a watcher iterates over, in the event loop that made it.

    Cancelling `anext` loses nothing.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()  # of what follows
        self._pending = deque[Event]()
        self._woken = False
        self._ended = False
        self._error: Exception | None = None

    def put(self, events: Sequence[Event], snapshot: Callable[[], Event]) -> bool:
        """Adds events, from any thread; `snapshot` returns what they amount to.

        Returns:
            Whether the loop is still there.
        """
        with self._lock:
            if len(self._pending) + len(events) > MOST:
                self._pending.clear()
                events = [snapshot()]
            self._pending += events
            return self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Ends the iteration once everything has been taken, from any thread."""
        with self._lock:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> bool:
        if self._loop.is_closed():
            return False
        try:
            if not self._woken:
                self._loop.call_soon_threadsafe(self._arrived.set)
                self._woken = True
        except RuntimeError:  # it has just been closed
            return False
        return True

    async def __anext__(self) -> Event:
        while True:
            with self._lock:
                if self._pending:
                    return self._pending.popleft()
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise StopAsyncIteration
                self._arrived.clear()
                self._woken = False
            await self._arrived.wait()
