"""The events of one watch, made by an async generator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from wool._workerinfo import WorkerInfo
from wool.abc import Event, Left, Snapshot

MOST = 10_000
"""So many events are kept for a slow watcher; then a snapshot takes their place."""


class Watch(AsyncIterator[Event]):
    """The events that a watcher iterates over. Cancelling `anext` loses nothing."""

    def __init__(self) -> None:
        self._known: dict[str, WorkerInfo] = {}
        self._pending = deque[Event]()
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    async def pump(self, events: AsyncGenerator[Event]) -> None:
        """Takes all events of a generator, and closes it."""
        try:
            async for event in events:
                self.put(event)
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._arrived.set()
            await events.aclose()

    def put(self, event: Event) -> None:
        """Adds an event."""
        if isinstance(event, Snapshot):
            self._pending.clear()  # it replaces what was before
            self._known = {worker.id or worker.address: worker for worker in event.workers}
        else:
            key = event.worker.id or event.worker.address
            self._known.pop(key, None)
            if not isinstance(event, Left):
                self._known[key] = event.worker
        if len(self._pending) >= MOST:
            self._pending.clear()
            event = Snapshot(list(self._known.values()))
        self._pending.append(event)
        self._arrived.set()

    def close(self) -> None:
        """Ends the iteration, also for a task that is waiting."""
        self._pending.clear()
        self._ended, self._error = True, None
        self._arrived.set()

    async def __anext__(self) -> Event:
        while not self._pending:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._pending.popleft()


@asynccontextmanager
async def watching(events: AsyncGenerator[Event]) -> AsyncGenerator[AsyncIterator[Event]]:
    """See `wool.abc.watching`."""
    watch = Watch()
    pumping = asyncio.create_task(watch.pump(events))
    try:
        yield watch
    finally:
        watch.close()
        pumping.cancel()
        await asyncio.wait([pumping])
