"""Cancellation of many calls: task groups, gather, nested routines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract.routines import (
    hang,
    hang_and_swallow,
    hang_and_tidy,
)
from contract.types import KeywordOnly
from support.parity import Journal, started
from support.waiting import ended

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


# Nested routines


async def test_a_nested_routine_swallows(journal: Journal) -> None:
    @wool.routine
    async def outer() -> str:
        return "outer of " + await hang_and_swallow(journal, "inner")

    task = await started(outer(), journal)
    task.cancel()
    assert await task == "outer of inner"
    assert task.cancelling() == 1


async def test_cancel_while_the_loop_ends(journal: Journal) -> None:
    """asyncio.run cancels what is left, and waits for it."""
    left: list[asyncio.Task[Any]] = []

    async def main() -> str:
        left.append(await started(hang_and_tidy(journal), journal))
        return "main is over"

    assert await asyncio.to_thread(asyncio.run, main()) == "main is over"
    assert left[0].cancelled()
    assert journal.lines() == ["started", "finally"]
