"""What one watcher has been told, and what is still to be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo

if TYPE_CHECKING:
    from wool_zeroconf._browser import Browser


class Watch(AsyncIterator[Event]):
    """Tells of workers that come and go.

    It keeps which workers something has happened to, not what: read slowly, it needs no more memory
    than there are workers, and tells what is true by then. A cancelled `anext()` loses nothing.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._told: dict[str, WorkerInfo] | None = None
        self._touched: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._closed = False
        self._failure: Exception | None = None

    def wake(self) -> None:
        """The browser knows who is there."""
        self._woken.set()

    def touch(self, name: str) -> None:
        """Something has happened to a worker."""
        self._touched[name] = None
        self._woken.set()

    def fail(self, error: Exception) -> None:
        """Nothing can be told any more."""
        self._failure = error
        self._woken.set()

    def close(self) -> None:
        """Ends the iteration."""
        self._closed = True
        self._woken.set()

    async def __anext__(self) -> Event:
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            self._woken.clear()
            if (event := self._next()) is not None:
                return event
            await self._woken.wait()

    def _next(self) -> Event | None:
        if not self._browser.ready:
            return None
        if self._told is None:
            self._told = self._browser.workers()
            return Snapshot(list(self._told.values()))
        while self._touched:
            name = next(iter(self._touched))
            del self._touched[name]
            if (event := self._tell(self._told, name)) is not None:
                return event
        return None

    def _tell(self, told: dict[str, WorkerInfo], name: str) -> Event | None:
        before, now = told.pop(name, None), self._browser.worker(name)
        if now is None:
            return Left(before) if before is not None else None
        told[name] = now
        if before is None:
            return Joined(now)
        return Changed(now) if before != now else None
