"""Fixtures and stand-ins for tests of pools that find workers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faultkit import Script

import wool
from wool import abc

TOKEN = wool.Credentials.new_token()

SERVE = """
import asyncio, sys, wool

async def main():
    async with wool.Worker(address=sys.argv[1], tags=sys.argv[2:]) as worker:
        print(worker.info.address, flush=True)
        await worker.serve()

asyncio.run(main())
"""


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)


@pytest.fixture
async def serving(folder: Path, token: None) -> AsyncIterator[Any]:
    """Starts workers in processes of their own; gives the process and the address of each."""
    with_them: list[Script] = []

    def start(address: str | None = None, *tags: str) -> tuple[Script, str]:
        place = folder / str(len(with_them))
        place.mkdir()
        (place / "s").mkdir(0o700)
        address = address or f"unix://{place}/s/w"
        path = os.pathsep.join(filter(None, sys.path))  # so that it can import the test
        script = Script(SERVE, place, address, *tags, env={"PYTHONPATH": path})
        with_them.append(script)
        return script, script.line()

    yield start
    for script in with_them:
        script.close()


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
