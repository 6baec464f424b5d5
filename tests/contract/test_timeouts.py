"""Timeouts and shields around calls and inside of routines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    fail,
    finish_when,
    hang,
    hang_and_swallow,
    hang_and_tidy,
    serving,
)
from support.parity import Journal, started, when_started
from support.waiting import ended, forever, this_task

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# Timeouts


async def test_timeout(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout, asyncio.TaskGroup() as group:
            group.create_task(when_started(timeout, journal))
            await hang(journal)
    assert timeout.expired()
    assert journal.lines() == ["started", "finally"]
    assert this_task().cancelling() == 0
    await serving()


async def test_timeout_seen_from_within(journal: Journal) -> None:
    seen: list[Any] = []
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(None) as timeout:
            helper = asyncio.create_task(when_started(timeout, journal))
            try:
                await hang_and_tidy(journal)
            except asyncio.CancelledError:
                seen += [journal.lines(), this_task().cancelling()]
                raise
    await helper
    assert seen == [["started", "finally"], 1]
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert this_task().cancelling() == 0


async def test_timeout_with_a_swallowing_routine(journal: Journal) -> None:
    """Python turns nothing but a CancelledError into a TimeoutError."""
    async with asyncio.timeout(None) as timeout:
        helper = asyncio.create_task(when_started(timeout, journal))
        assert await hang_and_swallow(journal) == "swallowed"
        assert this_task().cancelling() == 1
    await helper
    assert timeout.expired()
    assert journal.lines() == ["started", "finally"]
    assert this_task().cancelling() == 0


async def test_wait_for(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hang_and_tidy(journal, 3), 0.05)
    assert journal.lines() in ([], ["started", "finally"])
    assert await asyncio.wait_for(add(1), 60) == 3
    with pytest.raises(KeyError):
        await asyncio.wait_for(fail(KeyError()), 60)


# Shields


async def test_shield(journal: Journal) -> None:
    inner = asyncio.ensure_future(finish_when(journal, "go on", "result"))

    async def outer() -> Any:
        return await asyncio.shield(inner)

    task = await started(outer(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled() and not inner.done()
    journal.write("go on")
    assert await inner == "result"
    assert journal.lines() == ["started", "go on", "finished"]


async def test_shielded_cleanup_in_the_routine(journal: Journal) -> None:
    @wool.routine
    async def careful() -> None:
        async def tidy() -> None:
            journal.write("tidying")
            await journal.wait("go on")
            journal.write("tidied")

        journal.write("started")
        try:
            await forever()
        finally:
            await asyncio.shield(tidy())

    task = await started(careful(), journal)
    task.cancel()
    await journal.wait("tidying")
    assert not task.done()
    journal.write("go on")
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "tidying", "go on", "tidied"]
