"""Live objects in pools of their own kind: with limits, with workers between, in large numbers."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

import wool
from support.pools import TRANSPORTS, opened
from support.waiting import until


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


@wool.routine
async def total(source: Any) -> int:
    return sum([value async for value in source])


@wool.routine
async def ask(function: Any, *args: Any) -> Any:
    return await function(*args)


@wool.routine
async def begin(n: int) -> Any:
    async def sums() -> AsyncIterator[int]:
        for i in range(n):
            yield await add(i, i)

    return sums()


@wool.routine
async def doubled(source: Any) -> AsyncIterator[int]:
    async for value in source:
        yield 2 * value


# A routine that uses what lives elsewhere holds no slot meanwhile


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_with_one_slot_nothing_deadlocks(transport: str) -> None:
    async def sums(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield await add(i, i)  # needs the slot of the routine that waits for it

    async def work(n: int) -> int:
        return await total(sums(n))

    async with asyncio.timeout(40), opened(1, concurrency=1, transport=transport):
        assert await total(sums(4)) == 12
        assert await ask(wool.reference(work), 3) == 6
        assert await asyncio.gather(*(total(sums(3)) for _ in range(10))) == [6] * 10
        generator = await begin(4)
        assert await total(generator) == 12  # its owner and its user are one worker


async def test_what_is_lent_holds_no_slot() -> None:
    async with asyncio.timeout(40), opened(1, concurrency=1):
        generators = [await begin(3) for _ in range(20)]
        assert [await anext(generator) for generator in generators] == [0] * 20
        assert await add(1, 2) == 3
        assert [await total(generator) for generator in generators] == [6] * 20


# Who is in between


@wool.routine
async def pass_on(source: Any, depth: int) -> Any:
    """Passes it down a chain of calls, each on whatever worker."""
    if depth:
        return await pass_on(source, depth - 1)
    return os.getpid(), [await anext(source) for _ in range(3)]


def exported() -> int:
    from wool._values.references import EXPORTS

    gc.collect()
    return len(EXPORTS._by_key)


@wool.routine
async def exported_there() -> tuple[int, int]:
    return os.getpid(), exported()


async def test_those_in_between_keep_nothing() -> None:
    async def numbers() -> AsyncIterator[int]:
        for i in range(1000):
            yield i

    async with opened(3):
        generator = numbers()
        await asyncio.gather(*(pass_on(numbers(), 4) for _ in range(50)))
        _, values = await pass_on(generator, 4)
        assert values == [0, 1, 2]
        del generator
        await until(lambda: exported() == 0)

        async def gone() -> bool:
            counts = dict(await asyncio.gather(*(exported_there() for _ in range(30))))
            return len(counts) == 3 and not any(counts.values())

        await until(gone, what="the workers to give it up", within=20)


async def pause(dice: random.Random) -> None:
    """Nothing, some turns, or some milliseconds."""
    for _ in range(dice.randrange(0, 12)):
        await asyncio.sleep(0)
    if dice.randrange(2):
        await asyncio.sleep(dice.random() * 0.02)


@pytest.mark.parametrize(
    ("transport", "concurrency"), [*((each, None) for each in TRANSPORTS), ("unix", 1)]
)
async def test_cancelled_at_any_moment(transport: str, concurrency: int | None) -> None:
    """Whatever is cancelled when: every generator ends, and nothing is kept, here or there."""
    dice = random.Random(5)
    begun = ended = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal begun, ended
        begun += 1
        try:
            for i in range(20):
                await asyncio.sleep(dice.random() * 0.002)
                yield i
        finally:
            await asyncio.sleep(0)
            ended += 1

    async def count(source: AsyncIterator[int]) -> int:
        return len([value async for value in source])

    async def work() -> int:
        match dice.randrange(5):
            case 0:
                return await total(numbers())
            case 1:
                return (await pass_on(numbers(), 2))[0]
            case 2:
                return await ask(wool.reference(count), numbers())
            case 3:
                return await total(doubled(doubled(numbers())))
            case _:
                generator = await begin(5)
                return sum([value async for value in generator])

    async def cancelled() -> None:
        task = asyncio.create_task(work())
        await pause(dice)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task

    async with opened(2, transport=transport, concurrency=concurrency) as pool:
        await asyncio.gather(*(begin(1) for _ in range(4)))
        links = pool._pool.client().links.values()
        await until(lambda: all(link.session is not None for link in links))
        tasks = len(asyncio.all_tasks())
        for _ in range(6):
            await asyncio.gather(*(cancelled() for _ in range(25)))
        if transport != "memory":  # there both sides are one process

            async def gone() -> bool:
                counts = dict(await asyncio.gather(*(exported_there() for _ in range(20))))
                return len(counts) == 2 and not any(counts.values()) and exported() == 0

            await until(gone, what="all to be given up", within=20)
        else:
            await until(lambda: exported() == 0, within=20)
        await until(lambda: begun == ended, what="all generators to end")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, what="tasks to end")
        assert await total(numbers()) == 190


# Left to itself


async def test_a_task_left_behind_goes_on_using_what_its_caller_has() -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    @wool.routine
    async def leave_behind(queue: Any) -> None:
        async def work() -> None:
            for i in range(5):
                await queue.put(i)

        kept.append(asyncio.create_task(work()))

    async with asyncio.timeout(40), opened(1):
        await leave_behind(seen)
        assert [await seen.get() for _ in range(5)] == [0, 1, 2, 3, 4]


kept: list[asyncio.Task[None]] = []
