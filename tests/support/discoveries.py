"""A discovery that tests speak through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import wool
from wool import abc


class Told(abc.Discovery):
    """A discovery that says what the test tells it.

    Args:
        known: what whoever watches is told first.
    """

    def __init__(self, *known: Any) -> None:
        self.known = known
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.announced: dict[str, wool.WorkerInfo] = {}

    @asynccontextmanager
    async def announce(self, worker: wool.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        self.announced[worker.id] = worker
        try:
            yield Any  # type: ignore[misc]
        finally:
            del self.announced[worker.id]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
        async def events() -> AsyncGenerator[Any]:
            for event in self.known:
                yield event
            while True:
                event = await self.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event

        stream = events()
        try:
            yield stream
        finally:
            await stream.aclose()


def at(address: str) -> wool.WorkerInfo:
    return wool.WorkerInfo(address=address)
