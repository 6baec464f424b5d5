"""The events of discoveries that know nothing but all addresses there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from wool import abc

Event = abc.Snapshot | abc.Joined | abc.Changed | abc.Left


class Snapshots(AsyncIterator[Event]):
    """Yields the latest snapshot, once it is another one. Cancelling `anext` loses nothing."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._latest: abc.Snapshot | None = None
        self._failure: Exception | None = None
        self._ended = False

    def put(self, snapshot: abc.Snapshot) -> None:
        """These workers are there now."""
        self._latest = snapshot
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Nobody knows; raised from now on."""
        self._failure = error
        self._news.set()

    def end(self) -> None:
        """Ends the iteration."""
        self._ended = True
        self._news.set()

    async def __anext__(self) -> Event:
        await self._news.wait()
        if self._ended:
            raise StopAsyncIteration
        latest, self._latest = self._latest, None
        if latest is not None:
            if self._failure is None:
                self._news.clear()
            return latest
        assert self._failure is not None
        raise self._failure
