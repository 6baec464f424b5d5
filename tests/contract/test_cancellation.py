"""Cancellation of calls: delivered, acknowledged, and seen by the caller as if all ran here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    finish_when,
    hang,
    hang_and_raise,
    hang_and_swallow,
    hang_and_tidy,
    serving,
)
from contract.types import KeywordOnly
from support.parity import Journal, Place, started
from support.waiting import caught, ended, forever, this_task, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# One cancel


async def test_the_await_ends_when_the_finally_has_run(journal: Journal) -> None:
    task = await started(hang(journal), journal)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.lines() == ["started", "finally"]
    assert task.cancelled() and task.cancelling() == 1


async def test_a_coroutine_that_is_closed_by_hand(journal: Journal) -> None:
    """Is cancelled as well; nobody waits for its `finally`, which may have run at once."""
    call = hang(journal)
    call.send(None)
    await journal.wait("started")
    call.close()
    await journal.wait("finally")
    assert journal.lines() == ["started", "finally"]


async def test_a_swallowed_cancel_leaves_the_value(journal: Journal) -> None:
    task = await started(hang_and_swallow(journal, "kept"), journal)
    task.cancel()
    assert await task == "kept"
    assert not task.cancelled()
    assert task.cancelling() == 1


async def test_a_routine_may_go_on_after_a_cancel(journal: Journal) -> None:
    @wool.routine
    async def persist() -> str:
        journal.write("started")
        try:
            await forever()
        except asyncio.CancelledError:
            journal.write("swallowed")
        await journal.wait("go on")
        return f"done {await add(1, 2)}"

    task = await started(persist(), journal)
    task.cancel()
    await journal.wait("swallowed")
    await turns(5)
    assert not task.done()
    journal.write("go on")
    assert await task == "done 3"
    assert task.cancelling() == 1


async def test_uncancel_is_mirrored(journal: Journal) -> None:
    @wool.routine
    async def uncancelling() -> str:
        journal.write("started")
        try:
            await forever()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            return f"left {task.uncancel()}"
        return "not cancelled"

    seen: list[int] = []

    async def caller() -> str:
        result = await uncancelling()
        seen.append(this_task().cancelling())
        return result

    task = await started(caller(), journal)
    task.cancel()
    assert await task == "left 0"
    assert seen == [0] and task.cancelling() == 0


async def test_an_exception_instead(journal: Journal) -> None:
    error = KeywordOnly(code=3)
    task = await started(hang_and_raise(journal, error), journal)
    task.cancel("reason")
    raised = await caught(task)
    assert isinstance(raised, KeywordOnly) and raised.code == 3
    assert isinstance(raised.__context__, asyncio.CancelledError)
    assert raised.__context__.args == ("reason",)
    assert not task.cancelled()


# Messages


@pytest.mark.parametrize("message", ["reason", None, ("a", 1)], ids=str)
async def test_the_message_arrives(message: Any, journal: Journal) -> None:
    @wool.routine
    async def tell() -> Any:
        journal.write("started")
        try:
            await forever()
        except asyncio.CancelledError as error:
            return error.args

    task = await started(tell(), journal)
    task.cancel(message)
    assert await task == (() if message is None else (message,))


async def test_the_callers_own_error_has_the_message(journal: Journal) -> None:
    seen: list[Any] = []

    async def caller() -> None:
        try:
            await hang(journal)
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    task = await started(caller(), journal)
    task.cancel("reason")
    raised = await caught(task)
    assert seen == [("reason",)]
    assert type(raised) is asyncio.CancelledError and raised.args == ("reason",)


# Several cancels


async def test_a_second_cancel_interrupts_the_cleanup(journal: Journal) -> None:
    @wool.routine
    async def slow_cleanup() -> None:
        journal.write("started")
        try:
            await forever()
        finally:
            journal.write("cleaning")
            try:
                await forever()
            except asyncio.CancelledError as error:
                journal.write(f"interrupted {error.args}")
                raise

    task = await started(slow_cleanup(), journal)
    task.cancel("first")
    await journal.wait("cleaning")
    assert not task.done()
    task.cancel("second")
    await ended(task)
    assert journal.lines() == ["started", "cleaning", "interrupted ('second',)"]
    assert task.cancelled() and task.cancelling() == 2


# Early and late cancels


async def test_a_cancel_before_the_first_step(journal: Journal) -> None:
    task = asyncio.create_task(hang(journal))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await serving()
    assert journal.lines() == []


async def test_a_cancel_pending_when_the_call_is_made(journal: Journal) -> None:
    async def caller() -> None:
        this_task().cancel("pending")
        await hang(journal)

    task = asyncio.create_task(caller())
    raised = await caught(task)
    assert type(raised) is asyncio.CancelledError and raised.args == ("pending",)
    await serving()
    assert journal.lines() in ([], ["started", "finally"])


@pytest.mark.parametrize("delay", range(0, 30, 3))
async def test_a_cancel_at_any_moment(delay: int, journal: Journal) -> None:
    """Whenever it comes, what was begun is cleaned up when the await ends."""
    task = asyncio.create_task(hang_and_tidy(journal, 1))
    await turns(delay)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() in ([], ["started", "finally"])


async def test_a_cancel_racing_with_the_result() -> None:
    for delay in range(60):
        task = asyncio.create_task(add(delay, 1))
        await turns(delay % 20)
        task.cancel()
        outcome = await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            assert type(outcome[0]) is asyncio.CancelledError
        else:
            assert outcome == [delay + 1]
    await serving()


@pytest.mark.parametrize("delay", [0, 1, 3, 10])
async def test_a_cancel_while_a_large_argument_travels(delay: int, journal: Journal) -> None:
    data = bytes(20_000_000)

    @wool.routine
    async def take(data: bytes) -> int:
        await hang.__wrapped__(journal)
        return len(data)

    task = asyncio.create_task(take(data))
    await turns(delay)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() in ([], ["started", "finally"])
    await serving()


async def test_a_cancel_while_a_large_result_travels(journal: Journal) -> None:
    @wool.routine
    async def give() -> bytes:
        journal.write("started")
        return bytes(20_000_000)

    task = await started(give(), journal)
    await turns(2)
    task.cancel()
    await ended(task)
    assert task.cancelled() or len(task.result()) == 20_000_000
    await serving()


async def test_a_cancelled_call_that_waits_for_a_worker_never_starts(
    place: Place, journal: Journal
) -> None:
    """The only slot there is taken."""
    if not place.remote:
        return  # there are no slots without a pool
    async with wool.WorkerPool(size=1, concurrency=1, transport=place.transport):
        first = await started(finish_when(journal, "go on", "first"), journal)
        second = asyncio.create_task(hang(journal, " second"))
        third = asyncio.create_task(add(1))
        await turns(20)
        second.cancel()
        await ended(second)
        assert second.cancelled() and not first.done() and not third.done()
        journal.write("go on")
        assert (await first, await third) == ("first", 3)
    assert "started second" not in journal.lines()


async def test_nothing_is_left_of_many_cancels(journal: Journal) -> None:
    """Hundreds of calls, each cancelled at another moment, some before they began."""
    tasks = []
    for n in range(300):
        tasks.append(asyncio.create_task(hang(journal)))
        if n % 3 == 0:
            await turns(n % 7)
        tasks[n // 2].cancel()
    for task in tasks:
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=20)
    assert not pending and all(task.cancelled() for task in done)
    assert journal.count("started") == journal.count("finally")
    await serving()
