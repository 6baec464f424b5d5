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
    hang_and_raise,
    hang_and_tidy,
    hang_below,
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


async def test_move_on_at_once(journal: Journal) -> None:
    with anyio.move_on_after(0) as scope:
        await hang(journal)
    assert scope.cancelled_caught
    await serving()
    assert journal.lines() in ([], ["started", "finally"])


async def test_fail_after(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.05):
            await hang(journal)
    assert journal.lines() in ([], ["started", "finally"])
    await serving()


async def test_a_shielded_caller(journal: Journal) -> None:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                assert await add(1) == 3
            group.cancel_scope.cancel()
            await hang(journal)
    assert journal.lines() in ([], ["started", "finally"])


async def test_a_task_group_with_a_failing_sibling(journal: Journal) -> None:
    async def fail_when_started() -> None:
        await journal.wait("started")
        raise KeyError("sibling")

    with pytest.raises(ExceptionGroup) as raised:
        async with anyio.create_task_group() as group:
            group.start_soon(hang, journal)
            group.start_soon(fail_when_started)
    assert [error.args for error in raised.value.exceptions] == [("sibling",)]
    assert journal.lines() == ["started", "finally"]
    await serving()


async def test_a_task_group_of_shielding_routines(journal: Journal) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(shielding, journal)
        await journal.wait("started", 5)
        group.cancel_scope.cancel()
    assert journal.count("tidied 3") == 5
    await serving()


async def test_the_outer_of_two_scopes(journal: Journal) -> None:
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as outer:
            group.start_soon(cancel_when, outer, journal)
            with anyio.CancelScope() as inner:
                await hang(journal)
            raise AssertionError("not reached")
    assert outer.cancelled_caught and not inner.cancelled_caught
    assert journal.lines() == ["started", "finally"]


async def test_an_exception_instead(journal: Journal) -> None:
    with pytest.raises(KeyError, match="instead"):
        with anyio.CancelScope() as scope:
            helper = asyncio.create_task(cancel_when(scope, journal))
            await hang_and_raise(journal, KeyError("instead"))
    await helper
    assert not scope.cancelled_caught
    await serving()


async def test_nested_routines(journal: Journal) -> None:
    """Their clean-up is not shielded, so how much of it completes differs; none is skipped."""
    with anyio.CancelScope() as scope:
        helper = asyncio.create_task(cancel_when(scope, journal))
        await hang_below(journal, 0)
    await helper
    assert scope.cancelled_caught
    await serving()


async def test_scopes_inside_the_routine() -> None:
    @wool.routine
    async def impatient() -> Any:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep(3600)
        return scope.cancelled_caught

    @wool.routine
    async def too_late() -> None:
        with anyio.fail_after(0.001):
            await anyio.sleep(3600)

    assert await impatient() is True
    with pytest.raises(TimeoutError):
        await too_late()
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_task_group_inside_the_routine(journal: Journal) -> None:
    @wool.routine
    async def parent() -> int:
        results: list[int] = []

        async def child(n: int) -> None:
            results.append(await add(n, 1))

        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(child, n)
        return sum(results)

    assert await parent() == 15


async def test_a_native_cancel_of_a_routine_that_uses_anyio(journal: Journal) -> None:
    task = asyncio.create_task(shielding(journal))
    await journal.wait("started")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal.lines() == ["started", "tidied 3"]


async def test_a_native_cancel_below_an_anyio_scope(journal: Journal) -> None:
    async def caller() -> None:
        with anyio.CancelScope():
            await hang_and_tidy(journal)

    task = asyncio.create_task(caller())
    await journal.wait("started")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal.lines() == ["started", "finally"]


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


async def test_a_cancel_that_crosses_a_value(journal: Journal) -> None:
    """It strikes at the `yield`; what is cleaned up there in a shielded scope completes."""

    @wool.routine
    async def ticks() -> Any:
        number = 0
        try:
            while True:
                await asyncio.sleep(0)
                yield (number := number + 1)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.005)
                journal.write("tidied")

    for count in range(1, 11):
        stream = ticks()
        with anyio.CancelScope() as scope:
            async for number in stream:
                if number == count:
                    scope.cancel()
        assert scope.cancelled_caught
        assert journal.count("tidied") == count
