"""A balancer of the user's own."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import pytest

import wool
from support.jobs import add
from support.pools import opened, pids
from support.waiting import until
from wool.plugins import CallInfo

pytestmark = pytest.mark.timeout(60)


@wool.routine(tags={"large"})
async def where() -> int:
    return os.getpid()


@wool.routine(tags={"large"})
async def wheres(n: int) -> AsyncGenerator[int]:
    for _ in range(n):
        yield os.getpid()


async def test_it_chooses() -> None:
    asked: dict[str, CallInfo] = {}

    def last(call: CallInfo, workers: Sequence[wool.WorkerInfo]) -> wool.WorkerInfo:
        asked[call.id] = call
        return max(workers, key=lambda worker: worker.pid or 0)

    async with opened(2, balancer=last, tags={"large"}) as pool:
        await connected(pool)  # one that takes long to answer is not to be had
        chosen = max(worker.pid or 0 for worker in pool.workers)
        assert [await where() for _ in range(5)] == [chosen] * 5
        assert [one async for one in wheres(5)] == [chosen] * 5
    *calls, stream = asked.values()
    assert len(calls) == 5
    assert {call.tags for call in asked.values()} == {frozenset({"large"})}
    assert {call.routine for call in calls} == {f"{__name__}:where"}
    assert stream.routine == f"{__name__}:wheres"
    assert stream.stream and not any(call.stream for call in calls)


@wool.routine
async def work() -> int:
    await asyncio.sleep(0.01)
    return os.getpid()


async def connected(pool: wool.WorkerPool) -> None:
    links = pool._pool.client().links
    await until(lambda: all(link.session is not None for link in links.values()))


async def test_it_knows_the_load() -> None:
    loads: list[int] = []
    chosen: list[int | None] = []

    def least_loaded(call: CallInfo, workers: Sequence[wool.WorkerInfo]) -> wool.WorkerInfo:
        loads.append(sum(worker.load for worker in workers))
        one = min(workers, key=lambda worker: worker.load)
        chosen.append(one.pid)
        return one

    async with opened(2, balancer=least_loaded) as pool:
        await connected(pool)
        ran = await asyncio.gather(*(work() for _ in range(20)))
        assert set(ran) <= pids(pool)
        assert Counter(chosen[:20]) == dict.fromkeys(pids(pool), 10)
    assert loads[:20] == list(range(20))


@pytest.mark.parametrize(
    ("returned", "reason"),
    [(None, "returned None"), ("junk", "returned 'junk'"), (KeyError("no"), r"KeyError\('no'\)")],
    ids=["nothing", "junk", "an exception"],
)
async def test_it_does_not_choose(returned: Any, reason: str) -> None:
    """The call fails and says why; nothing else does."""
    useful = False

    def balancer(call: CallInfo, workers: Sequence[wool.WorkerInfo]) -> Any:
        if useful:
            return workers[0]
        if isinstance(returned, Exception):
            raise returned
        return returned

    async with opened(1, balancer=balancer):
        with pytest.raises(wool.WoolError, match=f"balancer failed to choose.*{reason}"):
            await add(1, 2)
        useful = True
        assert await add(1, 2) == 3


@wool.routine
async def count(n: int) -> AsyncGenerator[int]:
    for number in range(n):
        yield number


@wool.routine(prefetch=4)
async def count_ahead(n: int) -> AsyncGenerator[int]:
    for number in range(n):
        yield number


@pytest.mark.parametrize(
    "call",
    [lambda: add(1, 2), lambda: anext(count(2)), lambda: anext(count_ahead(2))],
    ids=["call", "stream", "ahead"],
)
async def test_calls_that_fail_at_once_let_others_run(call: Callable[[], Awaitable[int]]) -> None:
    """Whoever tries again and again does not keep the loop from what would help."""
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    async with opened(1, balancer=lambda call, workers: None):
        task = asyncio.create_task(other())
        for number in range(5):
            with pytest.raises(wool.WoolError, match="balancer failed"):
                await call()
            assert ran > number
        task.cancel()
