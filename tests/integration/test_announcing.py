"""When and where a `wool.Worker` is announced: on its I/O thread, whatever user code does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool
from wool import abc


class Noting(abc.Discovery):
    """Notes what is announced."""

    def __init__(self, *, entering: Exception | None = None, leaving: Exception | None = None):
        self.noted: list[str] = []
        self.places: set[tuple[str, Any]] = set()
        self._entering = entering
        self._leaving = leaving
        self.may_enter, self.may_leave = threading.Event(), threading.Event()
        self.may_enter.set()
        self.may_leave.set()

    def _note(self, word: str) -> None:
        self.noted.append(word)
        self.places.add((threading.current_thread().name, asyncio.current_task()))

    @asynccontextmanager
    async def announce(self, worker: wool.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        self._note("entered")
        try:
            while not self.may_enter.is_set():
                await asyncio.sleep(0.01)
            if self._entering:
                raise self._entering
            yield Any  # type: ignore[misc]
        finally:
            self._note("left")
            while not self.may_leave.is_set():
                await asyncio.sleep(0.01)
        if self._leaving:
            raise self._leaving

    def watch(self) -> Any:
        raise NotImplementedError


@pytest.fixture
def address(folder: Path) -> str:
    (folder / "s").mkdir(0o700)
    return f"unix://{folder}/s/w"


async def test_one_task_of_the_io_thread_announces(address: str) -> None:
    discovery = Noting()
    worker = wool.Worker(address=address, discovery=discovery)
    for _ in range(2):
        async with worker:
            assert discovery.noted[-1] == "entered"
        assert discovery.noted[-1] == "left"
    assert [name for name, _ in discovery.places] == ["wool-io"] * 2


async def test_draining_withdraws_although_the_loop_is_blocked(address: str) -> None:
    discovery = Noting()

    def drain() -> None:
        time.sleep(0.05)
        worker.drain()

    async with wool.Worker(address=address, discovery=discovery) as worker:
        thread = threading.Thread(target=drain)
        thread.start()
        deadline = time.monotonic() + 30
        while "left" not in discovery.noted and time.monotonic() < deadline:
            time.sleep(0.01)  # blocks the loop
        assert discovery.noted == ["entered", "left"]
        thread.join()
        await worker.serve()
    assert discovery.noted == ["entered", "left"]


async def test_a_discovery_that_refuses(address: str) -> None:
    discovery = Noting(entering=wool.ConfigurationError("not this one"))
    worker = wool.Worker(address=address, discovery=discovery)
    with pytest.raises(wool.ConfigurationError, match="not this one"):
        await worker.__aenter__()
    with pytest.raises(wool.WoolError, match="not serving"):
        worker.info  # noqa: B018
    assert discovery.noted == ["entered", "left"]


async def test_a_discovery_that_fails_while_it_withdraws(address: str) -> None:
    with pytest.raises(wool.WoolError, match="no goodbye"):
        async with wool.Worker(
            address=address, discovery=Noting(leaving=wool.WoolError("no goodbye"))
        ):
            pass
    async with wool.Worker(address=address):  # the place is free again
        pass


async def test_errors_of_the_library_that_a_discovery_uses(address: str) -> None:
    """Are told in a sentence, with the error as its cause."""
    error = RuntimeError("no server")
    with pytest.raises(
        wool.WoolError, match="cannot be announced, as the discovery Noting"
    ) as raised:
        async with wool.Worker(address=address, discovery=Noting(entering=error)):
            pass
    assert str(raised.value).endswith("fails: RuntimeError: no server")
    assert raised.value.__cause__ is error
    with pytest.raises(wool.WoolError, match="cannot be withdrawn") as raised:
        async with wool.Worker(address=address, discovery=Noting(leaving=error)):
            pass
    assert raised.value.__cause__ is error
