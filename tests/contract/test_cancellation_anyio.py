"""anyio's cancel scopes, which deliver a cancel again on every turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

import wool
from contract.routines import (
    add,
    hang,
    serving,
    stalling,
)
from support.parity import Journal
from support.waiting import forever

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


async def cancel_when(scope: anyio.CancelScope, journal: Journal, line: str = "started") -> None:
    await journal.wait(line)
    scope.cancel()


@wool.routine
async def shielding(journal: Journal) -> None:
    """Clean up in a shielded scope, with awaits and calls."""
    journal.write("started")
    try:
        await forever()
    finally:
        with anyio.CancelScope(shield=True):
            for _ in range(10):
                await anyio.sleep(0.001)
            journal.write(f"tidied {await add(1, 2)}")


async def test_a_cancelled_scope(journal: Journal) -> None:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when, scope, journal)
            await hang(journal)
    assert scope.cancelled_caught
    assert journal.lines() == ["started", "finally"]
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await serving()


async def test_shielded_cleanup_completes(journal: Journal) -> None:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when, scope, journal)
            await shielding(journal)
    assert scope.cancelled_caught
    assert journal.lines() == ["started", "tidied 3"]
    await serving()


async def test_move_on_after(journal: Journal) -> None:
    with anyio.move_on_after(0.05) as scope:
        await hang(journal)
    assert scope.cancelled_caught
    assert journal.lines() in ([], ["started", "finally"])
    with anyio.move_on_after(60) as scope:
        assert await add(1) == 3
    assert not scope.cancelled_caught


async def test_a_generator_step(journal: Journal) -> None:
    stream = stalling(journal)
    assert await anext(stream) == "first"
    with anyio.CancelScope() as scope:
        helper = asyncio.create_task(cancel_when(scope, journal))
        await anext(stream)
    await helper
    assert scope.cancelled_caught
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


async def test_a_generator_with_shielded_cleanup(journal: Journal) -> None:
    @wool.routine
    async def careful() -> Any:
        try:
            yield 1
            journal.write("started")
            await forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.005)
                journal.write("tidied")

    stream = careful()
    with anyio.CancelScope() as scope:
        helper = asyncio.create_task(cancel_when(scope, journal))
        async for _ in stream:
            pass
    await helper
    assert scope.cancelled_caught
    assert journal.lines() == ["started", "tidied"]
