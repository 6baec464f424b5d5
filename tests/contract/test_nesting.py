"""Routines that call routines: deep, wide, mutual, and what tasks they leave behind."""

from __future__ import annotations

import asyncio

import pytest

import wool
from contract import routines
from contract.routines import (
    add,
    descend,
    fib,
    leave_behind,
    process_id,
    serving,
    stream_with_task,
)
from contract.types import KeywordOnly
from support.parity import Journal, Place

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


async def test_fibonacci() -> None:
    assert await fib(10) == 55


async def test_deep() -> None:
    assert await descend(50) == 50


async def test_a_task_group_inside() -> None:
    @wool.routine
    async def parent() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(i, i)) for i in range(10)]
        return [task.result() for task in tasks]

    assert await parent() == list(range(0, 20, 2))


async def test_an_exception_among_many() -> None:
    @wool.routine
    async def picky(n: int) -> int:
        if n == 13:
            raise KeywordOnly(code=n)
        return await add(n, 1)

    @wool.routine
    async def parent() -> list[int]:
        return await asyncio.gather(*(picky(n) for n in range(20)))

    with pytest.raises(KeywordOnly) as raised:
        await parent()
    assert raised.value.code == 13
    await serving()


async def test_where_routines_run(place: Place) -> None:
    import os

    @wool.routine
    async def family() -> set[int]:
        return {os.getpid(), *await asyncio.gather(*(process_id() for _ in range(20)))}

    own = {await process_id() for _ in range(20)}
    assert (os.getpid() in own) is not place.elsewhere
    assert (os.getpid() in await family()) is not place.elsewhere


# Leftovers


async def test_a_task_goes_on_after_the_routine_returned(journal: Journal) -> None:
    assert await leave_behind(journal) == "returned"
    assert journal.lines() == []
    journal.write("go on")
    await journal.wait("result 42")


async def test_a_task_runs_between_the_steps_of_a_generator(journal: Journal) -> None:
    stream = stream_with_task(journal)
    assert await anext(stream) == "suspended"
    journal.write("go on")
    await journal.wait("meanwhile")
    assert await anext(stream) == "joined"
    await stream.aclose()


async def test_a_task_left_behind_is_not_cancelled_with_its_routine(journal: Journal) -> None:
    @wool.routine
    async def leave_and_hang() -> None:
        await leave_behind.__wrapped__(journal)
        await routines.hang(journal)

    task = asyncio.create_task(leave_and_hang())
    await journal.wait("started")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    journal.write("go on")
    await journal.wait("result 42")
