"""Cancellation of calls: delivered, acknowledged, and seen by the caller as if all ran here."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    fail,
    finish_when,
    hang,
    hang_and_raise,
    hang_and_swallow,
    hang_and_tidy,
    hang_below,
    serving,
    write,
)
from contract.support import Journal, caught, ended, forever, started, turns
from contract.types import KeywordOnly

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def when_started(timeout: asyncio.Timeout, journal: Journal) -> None:
    """Let `timeout` expire as soon as the routine has started."""
    await journal.wait("started")
    timeout.reschedule(asyncio.get_running_loop().time())


# One cancel


async def test_the_await_ends_when_the_finally_has_run(journal: Journal) -> None:
    task = await started(hang(journal), journal)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.lines() == ["started", "finally"]
    assert task.cancelled() and task.cancelling() == 1


async def test_cleanup_with_awaits_completes(journal: Journal) -> None:
    task = await started(hang_and_tidy(journal), journal)
    task.cancel()
    await ended(task)
    assert journal.lines() == ["started", "finally"]
    assert task.cancelled()


async def test_cleanup_that_calls_routines_completes(journal: Journal) -> None:
    @wool.routine
    async def tidy_remotely() -> None:
        journal.write("started")
        try:
            await forever()
        finally:
            await write(journal, f"tidied {await add(1, 2)}")

    task = await started(tidy_remotely(), journal)
    task.cancel()
    await ended(task)
    assert journal.lines() == ["started", "tidied 3"]
    assert task.cancelled()


async def test_context_managers_are_left(journal: Journal) -> None:
    @contextlib.asynccontextmanager
    async def resource(name: str) -> Any:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            journal.write(f"closed {name}")

    @wool.routine
    async def use() -> None:
        async with resource("outer"), resource("inner"):
            journal.write("started")
            await forever()

    task = await started(use(), journal)
    task.cancel()
    await ended(task)
    assert journal.lines() == ["started", "closed inner", "closed outer"]


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


async def test_cancelling_is_visible_inside(journal: Journal) -> None:
    @wool.routine
    async def counting() -> list[int]:
        task = asyncio.current_task()
        assert task is not None
        seen = [task.cancelling()]
        for line in ("started", "started again"):
            journal.write(line)
            try:
                await forever()
            except asyncio.CancelledError:
                seen.append(task.cancelling())
        return seen

    task = await started(counting(), journal)
    task.cancel()
    await journal.wait("started again")
    task.cancel()
    assert await task == [0, 1, 2]
    assert task.cancelling() == 2


async def test_an_exception_instead(journal: Journal) -> None:
    error = KeywordOnly(code=3)
    task = await started(hang_and_raise(journal, error), journal)
    task.cancel("reason")
    raised = await caught(task)
    assert isinstance(raised, KeywordOnly) and raised.code == 3
    assert isinstance(raised.__context__, asyncio.CancelledError)
    assert raised.__context__.args == ("reason",)
    assert not task.cancelled()


async def test_an_exception_in_the_cleanup(journal: Journal) -> None:
    @wool.routine
    async def breaking() -> None:
        journal.write("started")
        try:
            await forever()
        finally:
            raise ValueError("in the cleanup")

    task = await started(breaking(), journal)
    task.cancel()
    with pytest.raises(ValueError, match="in the cleanup"):
        await task


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_an_odd_exception_instead(kind: type[BaseException], journal: Journal) -> None:
    """Awaited within the task that is cancelled: tasks do not hold these."""

    async def cancel(task: asyncio.Task[Any]) -> None:
        await journal.wait("started")
        task.cancel()

    helper = asyncio.create_task(cancel(this_task()))
    raised = await caught(hang_and_raise(journal, kind("odd")))
    await helper
    assert type(raised) is kind and raised.args == ("odd",)
    assert this_task().uncancel() == 0
    await serving()


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


async def test_a_second_cancel_after_a_swallowed_one(journal: Journal) -> None:
    @wool.routine
    async def persist() -> None:
        for line in ("started", "again"):
            journal.write(line)
            try:
                await forever()
            except asyncio.CancelledError as error:
                if line == "again":
                    raise
                journal.write(f"swallowed {error.args}")

    task = await started(persist(), journal)
    task.cancel("first")
    await journal.wait("again")
    task.cancel("second")
    raised = await caught(task)
    assert type(raised) is asyncio.CancelledError and raised.args == ("second",)
    assert journal.lines() == ["started", "swallowed ('first',)", "again"]


async def test_many_cancels_swallowed_one_by_one(journal: Journal) -> None:
    @wool.routine
    async def persist(n: int) -> list[Any]:
        seen = []
        for i in range(n):
            journal.write(f"waiting {i}")
            try:
                await forever()
            except asyncio.CancelledError as error:
                seen.append(error.args[0])
        return seen

    task = asyncio.create_task(persist(5))
    for i in range(5):
        await journal.wait(f"waiting {i}")
        task.cancel(i)
    assert await task == list(range(5))
    assert task.cancelling() == 5


async def test_two_cancels_at_once_are_one(journal: Journal) -> None:
    """asyncio delivers cancels that meet before the task runs as one CancelledError."""

    @wool.routine
    async def persist() -> str:
        journal.write("started")
        try:
            await forever()
        except asyncio.CancelledError:
            journal.write("swallowed")
        await journal.wait("go on")
        return "done"

    task = await started(persist(), journal)
    task.cancel("first")
    task.cancel("second")
    await journal.wait("swallowed")
    journal.write("go on")
    assert await task == "done"
    assert task.cancelling() == 2


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


async def test_a_cancel_racing_with_an_exception() -> None:
    for delay in range(60):
        task = asyncio.create_task(fail(KeyError(delay)))
        await turns(delay % 20)
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        assert type(outcome) in (asyncio.CancelledError, KeyError)
    await serving()


async def test_a_cancel_after_the_end_does_nothing() -> None:
    task = asyncio.create_task(add(1))
    assert await task == 3
    assert not task.cancel()
    assert task.result() == 3 and not task.cancelled()


async def test_calls_work_in_the_cleanup_of_a_cancelled_caller(journal: Journal) -> None:
    results: list[int] = []

    async def caller() -> None:
        try:
            await hang(journal)
        finally:
            results.append(await add(1, 2))
            results.extend([i async for i in wool.map(add, [1, 2])])

    task = await started(caller(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert results == [3, 3, 4]


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


async def test_timeout_zero(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await hang(journal)
    assert journal.lines() in ([], ["started", "finally"])
    assert this_task().cancelling() == 0


async def test_timeout_that_does_not_expire() -> None:
    async with asyncio.timeout(60) as timeout:
        assert await add(1) == 3
    assert not timeout.expired()


async def test_the_outer_of_two_timeouts(journal: Journal) -> None:
    inner_expired = outer_expired = None
    try:
        async with asyncio.timeout(None) as outer:
            helper = asyncio.create_task(when_started(outer, journal))
            async with asyncio.timeout(60) as inner:
                await hang(journal)
    except TimeoutError:
        inner_expired, outer_expired = inner.expired(), outer.expired()
    await helper
    assert (inner_expired, outer_expired) == (False, True)
    assert journal.lines() == ["started", "finally"]


async def test_the_inner_of_two_timeouts(journal: Journal) -> None:
    async with asyncio.timeout(60) as outer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as inner:
                helper = asyncio.create_task(when_started(inner, journal))
                await hang(journal)
        await helper
        assert await add(1) == 3
    assert not outer.expired()


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


async def test_timeout_with_a_failing_routine(journal: Journal) -> None:
    with pytest.raises(KeyError, match="instead"):
        async with asyncio.timeout(None) as timeout:
            helper = asyncio.create_task(when_started(timeout, journal))
            await hang_and_raise(journal, KeyError("instead"))
    await helper
    assert this_task().cancelling() == 0


async def test_timeout_inside_the_routine() -> None:
    @wool.routine
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.001):
                await forever()
        except TimeoutError:
            return "timed out"
        return "not"

    assert await impatient() == "timed out"
    assert this_task().cancelling() == 0


async def test_timeout_error_of_the_routine() -> None:
    @wool.routine
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await forever()

    raised = await caught(impatient())
    assert type(raised) is TimeoutError
    assert isinstance(raised.__cause__, asyncio.CancelledError)
    assert this_task().cancelling() == 0


async def test_wait_for(journal: Journal) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hang_and_tidy(journal, 3), 0.05)
    assert journal.lines() in ([], ["started", "finally"])
    assert await asyncio.wait_for(add(1), 60) == 3
    with pytest.raises(KeyError):
        await asyncio.wait_for(fail(KeyError()), 60)


async def test_wait_for_that_is_cancelled(journal: Journal) -> None:
    task = await started(asyncio.wait_for(hang_and_tidy(journal), 60), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "finally"]


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


async def test_a_shielded_nested_routine(journal: Journal) -> None:
    """A second cancel ends the wait, and what is shielded goes on."""

    @wool.routine
    async def careful() -> None:
        inner = asyncio.ensure_future(finish_when(journal, "go on"))
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            journal.write("go on")
            await inner
            raise

    task = await started(careful(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "go on", "finished"]


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


async def test_many_tasks_are_cancelled(journal: Journal) -> None:
    tasks = [asyncio.create_task(hang(journal)) for _ in range(200)]
    await journal.wait("started", 200)
    for task in tasks:
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=20)
    assert not pending and all(task.cancelled() for task in done)
    assert journal.count("finally") == 200
    await serving()


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
