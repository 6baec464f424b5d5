"""The faults of `wool.testing.Faults`, on every transport."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, stay
from support.pools import CARRIERS, TRANSPORTS
from support.waiting import pid_in, until
from wool.testing import Faults


@wool.routine
async def count(numbers: int) -> AsyncIterator[int]:
    for number in range(numbers):
        yield number


@wool.routine
async def sleeping() -> None:
    await asyncio.sleep(60)


@pytest.fixture
def faults() -> Iterator[Faults]:
    with Faults() as faults:
        yield faults


async def stays(waiting: asyncio.Future[Any]) -> None:
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clogged(faults: Faults, transport: str) -> None:
    async with wool.WorkerPool(size=1, transport=transport):
        stream = count(5)
        assert await anext(stream) == 0
        with faults.clog():
            calling = asyncio.ensure_future(add(1, 2))
            await stays(calling)
        assert await calling == 3
        assert [number async for number in stream] == [1, 2, 3, 4]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_cut(faults: Faults, transport: str) -> None:
    async with wool.WorkerPool(size=1, transport=transport) as pool:
        assert await add(1, 2) == 3
        calling = asyncio.ensure_future(sleeping())
        await stays(calling)
        faults.cut(pool.workers[0])
        with pytest.raises(wool.WorkerLost) as caught:
            await calling
        assert caught.value.outcome == "unknown"
        assert await add(1, 2) == 3


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_dropped(faults: Faults, transport: str) -> None:
    async with wool.WorkerPool(size=1, transport=transport):
        assert await add(1, 2) == 3
        with faults.drop():
            calling = asyncio.ensure_future(add(1, 2))
            await stays(calling)
        with pytest.raises(wool.WorkerLost):
            await calling
        assert await add(1, 2) == 3


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_delayed(faults: Faults, transport: str) -> None:
    async with wool.WorkerPool(size=1, transport=transport):
        with faults.delay(0.02):
            assert await asyncio.gather(*(add(i, 1) for i in range(5))) == [1, 2, 3, 4, 5]
            assert [number async for number in count(3)] == [0, 1, 2]


@pytest.mark.parametrize("transport", CARRIERS)
async def test_one_of_two_workers(faults: Faults, transport: str) -> None:
    """A fault of one does not concern the other; calls that wait are taken there."""
    async with wool.WorkerPool(size=2, transport=transport, quorum=2) as pool:
        with faults.clog(pool.workers[0]):
            calls = [asyncio.ensure_future(add(number, 1)) for number in range(20)]
            await until(lambda: sum(call.done() for call in calls) >= 5)
        assert await asyncio.gather(*calls) == list(range(1, 21))


@pytest.mark.usefixtures("ends_are_known")
@pytest.mark.parametrize("transport", CARRIERS)
async def test_killed(faults: Faults, transport: str, folder: Path) -> None:
    async with wool.WorkerPool(size=1, transport=transport) as pool:
        calling = asyncio.ensure_future(stay(folder / "pid"))
        await pid_in(folder / "pid")
        faults.kill(pool.workers[0])
        with pytest.raises(wool.WorkerLost) as caught:
            await calling
        assert caught.value.signal == signal.SIGKILL
        assert await add(1, 2) == 3


async def test_stopped(faults: Faults) -> None:
    async with wool.WorkerPool(size=1, transport="unix") as pool:
        with faults.stop(pool.workers[0]):
            calling = asyncio.ensure_future(add(1, 2))
            await stays(calling)
        assert await calling == 3


async def test_pools_opened_afterwards_are_sound(faults: Faults) -> None:
    with Faults() as inner:
        pass
    async with wool.WorkerPool(size=1, transport="memory"):
        with inner.clog():
            assert await add(1, 2) == 3
