"""No call waits behind a busy worker while another one is idle.

The bounds are those of the best order a scheduler could find without knowing the future, times 1.6.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from faultjobs import block, fib, nap
from faultkit import opened, pid_in, pids

import wool

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("concurrency", [None, 1])]

SLACK = 1.6


async def warm_up() -> None:
    """Lets every worker import what the calls need."""
    await asyncio.gather(*(nap(0.05) for _ in range(8)))
    await asyncio.gather(*(block(0.01) for _ in range(8)))


@wool.routine
async def fan_out(n: int, seconds: float) -> set[int]:
    return set(await asyncio.gather(*(block(seconds) for _ in range(n))))


@wool.routine
async def tree(depth: int, seconds: float) -> int:
    """Blocks at every leaf of a binary tree of calls."""
    if depth == 0:
        return await block(seconds) and 1
    return sum(await asyncio.gather(*(tree(depth - 1, seconds) for _ in range(2))))


@pytest.mark.parametrize("order", ["first", "in the middle", "last"])
async def test_one_long_call_among_many_short(concurrency: int | None, order: str) -> None:
    """The short ones get past the long one, wherever it stands in the queue."""
    durations = [0.03] * 40
    durations.insert({"first": 0, "in the middle": 20, "last": 40}[order], 1.2)
    ideal = {"first": 1.2, "in the middle": 1.5, "last": 1.8}[order]
    async with opened(2, concurrency=concurrency) as pool:
        await warm_up()
        start = time.monotonic()
        where = await asyncio.gather(*(block(seconds) for seconds in durations))
        took = time.monotonic() - start
        assert took < ideal * SLACK
        assert set(where) == pids(pool)


async def test_uneven_work(concurrency: int | None) -> None:
    """Sixty calls of 5 to 100 ms in random order keep both workers busy to the end."""
    dice = random.Random(7)
    durations = [dice.uniform(0.005, 0.1) for _ in range(60)]
    async with opened(2, concurrency=concurrency):
        await warm_up()
        start = time.monotonic()
        await asyncio.gather(*(block(seconds) for seconds in durations))
        took = time.monotonic() - start
        assert took < sum(durations) / 2 * SLACK


async def test_uneven_work_that_alternates(concurrency: int | None) -> None:
    """The order that is worst for dealing out in turns: every second call is long."""
    durations = [0.1, 0.001] * 20
    async with opened(2, concurrency=concurrency):
        await warm_up()
        start = time.monotonic()
        await asyncio.gather(*(block(seconds) for seconds in durations))
        took = time.monotonic() - start
        assert took < sum(durations) / 2 * SLACK


async def test_two_calls_take_two_workers(concurrency: int | None) -> None:
    """Never both on one."""
    async with opened(2, concurrency=concurrency) as pool:
        await warm_up()
        for _ in range(5):
            assert set(await asyncio.gather(block(0.2), block(0.2))) == pids(pool)


async def test_calls_one_by_one_beside_a_busy_worker(concurrency: int | None, folder: Path) -> None:
    """While one worker is blocked, each single call is served by the other at once."""
    async with opened(2, concurrency=concurrency):
        await warm_up()
        blocked = asyncio.ensure_future(block(2.5, folder / "pid"))
        busy = await pid_in(folder / "pid")
        for _ in range(30):
            assert await block(0.01) != busy
        assert not blocked.done()
        await blocked


async def test_nested_calls_use_the_idle_worker(concurrency: int | None, folder: Path) -> None:
    """Calls made by a routine are bound as late as those of the caller."""
    async with opened(2, concurrency=concurrency) as pool:
        await warm_up()
        blocked = asyncio.ensure_future(block(2, folder / "pid"))
        busy = await pid_in(folder / "pid")
        start = time.monotonic()
        served = await fan_out(20, 0.05)
        took = time.monotonic() - start
        assert took < 1.0 * SLACK
        assert served == pids(pool) - {busy}
        await blocked
        start = time.monotonic()
        assert await fan_out(40, 0.05) == pids(pool)
        assert time.monotonic() - start < 1.0 * SLACK


async def test_calls_of_several_callers(concurrency: int | None) -> None:
    """Two routines on different workers each make calls, and so does the caller."""
    async with opened(2, concurrency=concurrency):
        await warm_up()
        start = time.monotonic()
        await asyncio.gather(fan_out(20, 0.02), fan_out(20, 0.06), fan_out(5, 0.1), block(0.5))
        took = time.monotonic() - start
        assert took < (20 * 0.02 + 20 * 0.06 + 5 * 0.1 + 0.5) / 2 * SLACK


async def test_tree_of_calls(concurrency: int | None) -> None:
    """64 blocking leaves under 63 nested calls: both workers stay busy, nothing deadlocks."""
    async with opened(2, concurrency=concurrency):
        await warm_up()
        await tree(1, 0.01)
        start = time.monotonic()
        assert await tree(6, 0.03) == 64
        took = time.monotonic() - start
        assert took < 64 * 0.03 / 2 * SLACK


async def test_nesting_on_one_worker(concurrency: int | None) -> None:
    """A routine that awaits another holds no slot: one worker is enough for any depth."""
    async with opened(1, concurrency=concurrency):
        async with asyncio.timeout(30):
            assert await tree(5, 0.0) == 32
            assert await fib(8) == 21
