"""Cancellation of many calls: task groups, gather, nested routines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    hang,
    hang_and_raise,
    hang_and_swallow,
    hang_and_tidy,
    hang_below,
)
from contract.types import KeywordOnly
from support.parity import Journal, started
from support.waiting import ended, forever

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# Groups


async def test_a_failing_sibling_cancels(journal: Journal) -> None:
    @wool.routine
    async def fail_when(line: str) -> None:
        await journal.wait(line)
        raise KeywordOnly(code=4)

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(hang_and_tidy(journal))
            group.create_task(fail_when("started"))
    [error] = raised.value.exceptions
    assert isinstance(error, KeywordOnly) and error.code == 4
    assert first.cancelled()
    assert journal.lines() == ["started", "finally"]


async def test_a_group_inside_a_routine(journal: Journal) -> None:
    @wool.routine
    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(hang(journal, name))

    task = asyncio.create_task(parent())
    for name in "abc":
        await journal.wait("started" + name)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert sorted(journal.lines()[3:]) == ["finallya", "finallyb", "finallyc"]


async def test_gather_is_cancelled(journal: Journal) -> None:
    gathered = asyncio.gather(*(hang(journal) for _ in range(10)))
    await journal.wait("started", 10)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered  # which ends with the first of them
    await journal.wait("finally", 10)


async def test_wait_first_completed(journal: Journal) -> None:
    slow = await started(hang(journal), journal)
    quick = asyncio.create_task(add(1))
    done, pending = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
    assert done == {quick} and pending == {slow}
    slow.cancel()
    await ended(slow)
    assert journal.lines() == ["started", "finally"]


# Nested routines


async def test_nested_routines_are_cancelled_from_the_inside(journal: Journal) -> None:
    task = await started(hang_below(journal, 4), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", *(f"finally {depth}" for depth in range(5))]


async def test_a_nested_routine_swallows(journal: Journal) -> None:
    @wool.routine
    async def outer() -> str:
        return "outer of " + await hang_and_swallow(journal, "inner")

    task = await started(outer(), journal)
    task.cancel()
    assert await task == "outer of inner"
    assert task.cancelling() == 1


async def test_a_nested_routine_raises_instead(journal: Journal) -> None:
    @wool.routine
    async def outer() -> str:
        try:
            await hang_and_raise(journal, KeyError("inner"))
        except KeyError as error:
            return f"caught {error}"
        return "nothing"

    task = await started(outer(), journal)
    task.cancel()
    assert await task == "caught 'inner'"


async def test_a_routine_cancels_a_nested_one(journal: Journal) -> None:
    @wool.routine
    async def outer() -> Any:
        task = asyncio.create_task(hang(journal))
        await journal.wait("started")
        task.cancel("from the routine")
        try:
            await task
        except asyncio.CancelledError as error:
            return error.args, task.cancelled(), journal.lines()

    assert await outer() == (("from the routine",), True, ["started", "finally"])


async def test_the_message_reaches_a_nested_routine(journal: Journal) -> None:
    @wool.routine
    async def inner() -> Any:
        journal.write("started")
        try:
            await forever()
        except asyncio.CancelledError as error:
            return error.args

    @wool.routine
    async def outer() -> Any:
        return await inner()

    task = await started(outer(), journal)
    task.cancel("deep")
    assert await task == ("deep",)


async def test_cancel_while_the_loop_ends(journal: Journal) -> None:
    """asyncio.run cancels what is left, and waits for it."""
    left: list[asyncio.Task[Any]] = []

    async def main() -> str:
        left.append(await started(hang_and_tidy(journal), journal))
        return "main is over"

    assert await asyncio.to_thread(asyncio.run, main()) == "main is over"
    assert left[0].cancelled()
    assert journal.lines() == ["started", "finally"]
