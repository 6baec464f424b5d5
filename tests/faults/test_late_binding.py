"""No call waits behind a busy worker while another one is idle.

One worker is held until the test lets go of it: whatever waits behind it would wait in vain. Where
both are free, what counts is how the work was divided between them, not how long it took.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

import wool
from support.jobs import block, block_until, count, nap, tell
from support.pools import opened, pids
from support.waiting import pid_in

pytestmark = pytest.mark.timeout(60)

either = pytest.mark.parametrize("concurrency", [None, 1])

MOST = 0.75
"""The share of the work that one of two workers may get."""

ATTEMPTS = 4
"""How often work is divided, if it has to be: the machine may have left one worker out."""


async def warm_up() -> None:
    """Lets every worker import what the calls need."""
    await asyncio.gather(*(nap(0.05) for _ in range(8)))
    await asyncio.gather(*(block(0.01) for _ in range(8)))


@wool.routine
async def hold(path: Path) -> None:
    """Blocks its loop until the file `path.released` exists."""
    tell(path)
    while not path.with_suffix(".released").exists():
        time.sleep(0.01)


class Held:
    """A worker that is busy for as long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "held"

    async def __aenter__(self) -> int:
        self._call = asyncio.ensure_future(hold(self._path))
        return await pid_in(self._path)

    async def __aexit__(self, *details: object) -> None:
        assert not self._call.done()
        self._path.with_suffix(".released").touch()
        await self._call


@wool.routine
async def fan_out(n: int, seconds: float) -> list[tuple[int, float]]:
    return await gathered([seconds] * n)


async def gathered(durations: list[float]) -> list[tuple[int, float]]:
    """Returns where each call was served."""
    served = await asyncio.gather(*(block(seconds) for seconds in durations))
    return list(zip(served, durations, strict=True))


Divide = Callable[[], Awaitable[Iterable[tuple[int, float]]]]


async def divided(divide: Divide) -> None:
    """Checks that no worker gets nearly all of the work."""
    for _ in range(ATTEMPTS):
        shares: Counter[int] = Counter()
        for pid, seconds in await divide():
            shares[pid] += seconds  # type: ignore[assignment]
        if max(shares.values()) <= MOST * sum(shares.values()):
            return
    pytest.fail(f"{shares}, time and again")


@either
async def test_short_calls_get_past_a_long_one(concurrency: int | None, folder: Path) -> None:
    """Wherever it stands in the queue, and whatever has ended before."""

    async def stream() -> list[int]:
        return [number async for number in count(3)]

    async with opened(2, concurrency=concurrency):
        await warm_up()
        await asyncio.gather(*(stream() for _ in range(16)))
        before = [asyncio.ensure_future(block(0.01)) for _ in range(20)]
        async with Held(folder) as busy:
            assert busy not in await asyncio.gather(*(block(0.005) for _ in range(20)))
            await asyncio.gather(*before)


async def test_uneven_work() -> None:
    """Sixty calls of 5 to 100 ms in random order keep both workers busy to the end."""
    dice = random.Random(7)
    durations = [dice.uniform(0.005, 0.1) for _ in range(60)]
    async with opened(2):
        await warm_up()
        await divided(lambda: gathered(durations))


async def test_two_calls_take_two_workers(folder: Path) -> None:
    """Never both on one."""
    async with opened(2) as pool:
        await warm_up()
        for n in range(5):
            held = [asyncio.ensure_future(hold(folder / f"{n}{each}")) for each in "ab"]
            where = {await pid_in(folder / f"{n}{each}") for each in "ab"}
            assert where == pids(pool)
            for each in "ab":
                (folder / f"{n}{each}.released").touch()
            await asyncio.gather(*held)


@either
async def test_calls_that_cross_a_recall(concurrency: int | None, folder: Path) -> None:
    """They are sent while others are being taken back from a worker that has just blocked."""
    async with opened(2, concurrency=concurrency):
        await warm_up()
        for turn in range(12):
            for _ in range(10):
                await block(0)
            go = folder / f"go{turn}"
            blocked = asyncio.ensure_future(block_until(go))
            await asyncio.sleep(0.001 * (1 + turn % 4))
            async with asyncio.timeout(30):
                await asyncio.gather(*(block(0) for _ in range(6)))
            go.touch()
            await blocked


@either
async def test_nested_calls_use_the_idle_worker(concurrency: int | None, folder: Path) -> None:
    """Calls made by a routine are bound as late as those of the caller."""
    async with opened(2, concurrency=concurrency) as pool:
        await warm_up()
        async with Held(folder) as busy:
            served = {pid for pid, _ in await fan_out(20, 0.01)}
            assert served == pids(pool) - {busy}
        await divided(lambda: fan_out(40, 0.03))


async def test_the_first_nested_calls() -> None:
    """They block the loop on which the worker connects to the other one, which gets its share."""

    async def divide() -> list[tuple[int, float]]:
        async with opened(2):
            return await fan_out(12, 0.3)

    await divided(divide)
