"""How async generators end early: aclose, break, cancellation, garbage, the end of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    count,
    echoing,
    serving,
    stalling,
    stubborn,
    tracing,
    write,
)
from contract.types import KeywordOnly
from support.parity import Journal, started
from support.waiting import caught, ended, forever, this_task, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# aclose


async def test_aclose_awaits_the_finally(journal: Journal) -> None:
    stream = tracing(journal)
    assert await anext(stream) == 0
    for _ in range(2):
        assert await stream.aclose() is None
        assert journal.lines() == ["step 0", "finally"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_aclose_of_an_unstarted_one(journal: Journal) -> None:
    stream = tracing(journal)
    await stream.aclose()
    await stream.aclose()
    assert journal.lines() == []
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await stream.asend(1)


async def test_the_generator_sees_generator_exit(journal: Journal) -> None:
    @wool.routine
    async def seeing() -> Any:
        try:
            yield 1
        except BaseException as error:
            journal.write(f"{type(error).__name__} {error.args} {error.__context__}")
            raise

    stream = seeing()
    await anext(stream)
    await stream.aclose()
    assert journal.lines() == ["GeneratorExit () None"]


async def test_a_generator_that_returns_on_generator_exit() -> None:
    @wool.routine
    async def returning() -> Any:
        try:
            yield 1
        except GeneratorExit:
            return

    stream = returning()
    await anext(stream)
    await stream.aclose()
    assert [i async for i in stream] == []


async def test_a_generator_that_ignores_generator_exit() -> None:
    stream = stubborn()
    assert await anext(stream) == 1
    raised = await caught(stream.aclose())
    assert type(raised) is RuntimeError
    assert raised.args == ("async generator ignored GeneratorExit",)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


async def test_an_exception_in_the_cleanup() -> None:
    @wool.routine
    async def breaking() -> Any:
        try:
            yield 1
        finally:
            raise KeywordOnly(code=3)

    stream = breaking()
    await anext(stream)
    raised = await caught(stream.aclose())
    assert isinstance(raised, KeywordOnly) and raised.code == 3
    assert isinstance(raised.__context__, GeneratorExit)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_cleanup_that_calls_routines(journal: Journal) -> None:
    @wool.routine
    async def tidy() -> Any:
        try:
            yield 1
        finally:
            await write(journal, f"tidied {await add(1, 2)} {[i async for i in count(2)]}")

    stream = tidy()
    await anext(stream)
    await stream.aclose()
    assert journal.lines() == ["tidied 3 [0, 1]"]


async def test_nested_generators_close_from_the_inside(journal: Journal) -> None:
    @wool.routine
    async def level(depth: int) -> Any:
        try:
            if depth == 0:
                yield "bottom"
            else:
                async with contextlib.aclosing(level(depth - 1)) as below:
                    async for item in below:
                        yield item
        finally:
            await asyncio.sleep(0)
            journal.write(f"finally {depth}")

    stream = level(3)
    assert await anext(stream) == "bottom"
    await stream.aclose()
    assert journal.lines() == [f"finally {depth}" for depth in range(4)]


async def test_aclosing_and_break(journal: Journal) -> None:
    async with contextlib.aclosing(tracing(journal, 10)) as stream:
        async for i in stream:
            if i == 2:
                break
    assert journal.lines() == ["step 0", "step 1", "step 2", "finally"]


async def test_aclosing_and_an_exception(journal: Journal) -> None:
    with pytest.raises(KeyError):
        async with contextlib.aclosing(tracing(journal, 10)) as stream:
            async for _ in stream:
                raise KeyError("of the caller")
    assert journal.lines() == ["step 0", "finally"]


async def test_break_alone_leaves_it_suspended(journal: Journal) -> None:
    stream = tracing(journal, 3)
    async for _ in stream:
        break
    await serving()
    assert journal.lines() == ["step 0"]
    assert [i async for i in stream] == [1, 2]
    assert journal.lines() == ["step 0", "step 1", "step 2", "exhausted", "finally"]


async def test_many_close_at_once(journal: Journal) -> None:
    streams = [tracing(journal) for _ in range(50)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await asyncio.gather(*(stream.aclose() for stream in streams))
    assert journal.count("finally") == 50


async def test_closing_with_a_timeout(journal: Journal) -> None:
    @wool.routine
    async def slow_to_close() -> Any:
        try:
            yield 1
        finally:
            journal.write("started")
            try:
                await forever()
            finally:
                journal.write("interrupted")

    stream = slow_to_close()
    await anext(stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            closing = asyncio.create_task(journal.wait("started"))
            closing.add_done_callback(
                lambda _: timeout.reschedule(asyncio.get_running_loop().time())
            )
            await stream.aclose()
    assert journal.lines() == ["started", "interrupted"]
    assert this_task().cancelling() == 0
    await stream.aclose()


async def test_closing_that_is_cancelled(journal: Journal) -> None:
    @wool.routine
    async def slow_to_close() -> Any:
        try:
            yield 1
        finally:
            journal.write("started")
            try:
                await forever()
            except asyncio.CancelledError as error:
                journal.write(f"cancelled {error.args}")
                await turns(3)
                raise

    stream = slow_to_close()
    await anext(stream)
    task = await started(stream.aclose(), journal)
    task.cancel("enough")
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "cancelled ('enough',)"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


# Cancelled steps


async def test_a_cancelled_step_ends_the_generator(journal: Journal) -> None:
    stream = stalling(journal)
    assert await anext(stream) == "first"
    task = await started(anext(stream), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled() and task.cancelling() == 1
    assert journal.lines() == ["started", "finally"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


async def test_a_cancelled_first_step(journal: Journal) -> None:
    @wool.routine
    async def never() -> Any:
        journal.write("started")
        try:
            await forever()
            yield 1
        finally:
            await turns(2)
            journal.write("finally")

    stream = never()
    task = await started(anext(stream), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "finally"]
    assert [i async for i in stream] == []


async def test_a_generator_that_swallows_a_cancel(journal: Journal) -> None:
    @wool.routine
    async def persisting() -> Any:
        n = 0
        while True:
            try:
                journal.write("started")
                await forever()
            except asyncio.CancelledError as error:
                n += 1
                yield n, error.args

    stream = persisting()
    for n in (1, 2, 3):
        task = await started(anext(stream), journal)
        task.cancel(n)
        assert await task == (n, (n,))
        assert task.cancelling() == 1
    await stream.aclose()


async def test_a_generator_that_uncancels(journal: Journal) -> None:
    @wool.routine
    async def uncancelling() -> Any:
        yield "ready"
        try:
            journal.write("started")
            await forever()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            yield task.uncancel()
        yield "still here"

    stream = uncancelling()
    seen: list[int] = []

    async def step() -> Any:
        value = await anext(stream)
        seen.append(this_task().cancelling())
        return value

    assert await anext(stream) == "ready"
    task = await started(step(), journal)
    task.cancel()
    assert await task == 0
    assert seen == [0]
    assert await anext(stream) == "still here"
    await stream.aclose()


async def test_a_generator_that_raises_when_cancelled(journal: Journal) -> None:
    @wool.routine
    async def raising() -> Any:
        yield 1
        try:
            journal.write("started")
            await forever()
        except asyncio.CancelledError as error:
            raise KeyError("instead") from error

    stream = raising()
    await anext(stream)
    task = await started(anext(stream), journal)
    task.cancel("reason")
    raised = await caught(task)
    assert type(raised) is KeyError and raised.args == ("instead",)
    assert isinstance(raised.__cause__, asyncio.CancelledError)
    assert raised.__cause__.args == ("reason",)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_generator_that_ends_when_cancelled(journal: Journal) -> None:
    @wool.routine
    async def ending() -> Any:
        yield 1
        try:
            journal.write("started")
            await forever()
        except asyncio.CancelledError:
            return

    stream = ending()
    await anext(stream)
    task = await started(anext(stream, "over"), journal)
    task.cancel()
    assert await task == "over"


async def test_a_second_cancel_of_a_step(journal: Journal) -> None:
    @wool.routine
    async def slow_cleanup() -> Any:
        yield 1
        try:
            journal.write("started")
            await forever()
        finally:
            journal.write("cleaning")
            try:
                await forever()
            finally:
                journal.write("interrupted")

    stream = slow_cleanup()
    await anext(stream)
    task = await started(anext(stream), journal)
    task.cancel()
    await journal.wait("cleaning")
    assert not task.done()
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "cleaning", "interrupted"]


async def test_a_cancel_before_the_step_leaves_the_generator_alone(journal: Journal) -> None:
    stream = tracing(journal, 2)
    assert await anext(stream) == 0

    async def step() -> int:
        return await anext(stream)

    task = asyncio.create_task(step())
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert await anext(stream) == 1
    await stream.aclose()


async def test_a_cancel_between_the_steps_leaves_the_generator_alone(journal: Journal) -> None:
    stream = echoing()

    async def driver() -> None:
        assert await anext(stream) == "ready"
        journal.write("started")
        await forever()

    task = await started(driver(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert await stream.asend("another task") == "another task"
    await stream.aclose()


async def test_a_cancel_pending_when_a_step_is_made(journal: Journal) -> None:
    stream = stalling(journal)

    async def driver() -> None:
        assert await anext(stream) == "first"
        this_task().cancel("pending")
        await anext(stream)

    raised = await caught(asyncio.create_task(driver()))
    assert type(raised) is asyncio.CancelledError and raised.args == ("pending",)
    assert journal.lines() in (["finally"], ["started", "finally"])
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("delay", range(0, 20, 4))
async def test_a_cancel_at_any_moment(delay: int, journal: Journal) -> None:
    """A step either gave its value, or was never made, or saw the cancel."""
    stream = tracing(journal, 1000)

    async def consume() -> None:
        async for _ in stream:
            await turns(1 + delay % 3)

    task = asyncio.create_task(consume())
    await turns(delay)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    await stream.aclose()
    steps = journal.lines()
    if steps and steps[-1] == "finally":
        steps.pop()
    assert steps == [f"step {n}" for n in range(len(steps))]
    assert journal.count("finally") == (1 if steps else 0)
    await serving()


async def test_timeout_of_a_step(journal: Journal) -> None:
    stream = stalling(journal)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            waiting = asyncio.create_task(journal.wait("started"))
            waiting.add_done_callback(
                lambda _: timeout.reschedule(asyncio.get_running_loop().time())
            )
            async for value in stream:
                assert value == "first"
    assert journal.lines() == ["started", "finally"]
    assert this_task().cancelling() == 0


async def test_wait_for_of_a_step(journal: Journal) -> None:
    stream = stalling(journal)
    assert await asyncio.wait_for(anext(stream), 60) == "first"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.05)
    await stream.aclose()
    assert journal.lines() in (["finally"], ["started", "finally"])


async def test_a_failing_sibling_of_a_consumer(journal: Journal) -> None:
    async def consume() -> None:
        async for _ in stalling(journal):
            pass

    async def fail_when_started() -> None:
        await journal.wait("started")
        raise KeyError("sibling")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            group.create_task(fail_when_started())
    assert journal.lines() == ["started", "finally"]


async def test_a_cancelled_routine_that_consumes_a_generator(journal: Journal) -> None:
    @wool.routine
    async def consumer() -> None:
        try:
            async for _ in stalling(journal):
                pass
        finally:
            journal.write("consumer left")

    task = await started(consumer(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["started", "finally", "consumer left"]


async def test_a_cancelled_generator_that_awaits_a_routine(journal: Journal) -> None:
    @wool.routine
    async def inner() -> None:
        journal.write("started")
        try:
            await forever()
        finally:
            await turns(2)
            journal.write("inner left")

    @wool.routine
    async def outer() -> Any:
        yield 1
        try:
            await inner()
        finally:
            journal.write("outer left")

    stream = outer()
    await anext(stream)
    task = await started(anext(stream), journal)
    task.cancel()
    await ended(task)
    assert journal.lines() == ["started", "inner left", "outer left"]


# Left to the garbage collector and the loop


async def test_break_without_a_reference_closes(journal: Journal) -> None:
    async for _ in tracing(journal):
        break
    gc.collect()
    await journal.wait("finally")
    assert journal.lines() == ["step 0", "finally"]
    await serving()


async def test_garbage_in_a_cycle_closes(journal: Journal) -> None:
    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.stream = tracing(journal)

    holder = Holder()
    await anext(holder.stream)
    del holder
    gc.collect()
    await journal.wait("finally")


async def test_garbage_inside_a_routine_closes(journal: Journal) -> None:
    @wool.routine
    async def careless() -> str:
        async for _ in tracing(journal):
            break
        gc.collect()
        return "left it"

    assert await careless() == "left it"
    await journal.wait("finally")


async def test_a_lot_of_garbage_closes(journal: Journal) -> None:
    async def abandon() -> None:
        stream = tracing(journal)
        await anext(stream)

    await asyncio.gather(*(abandon() for _ in range(50)))
    gc.collect()
    await journal.wait("finally", 50)
    await serving()


async def test_the_end_of_the_loop_closes_many(journal: Journal) -> None:
    kept: list[Any] = []

    async def main() -> None:
        for _ in range(20):
            stream = tracing(journal)
            kept.append(stream)
            await anext(stream)

    await asyncio.to_thread(asyncio.run, main())
    assert journal.count("finally") == 20
    await serving()


async def test_the_end_of_the_loop_cancels_a_step(journal: Journal) -> None:
    kept: list[Any] = []

    async def main() -> None:
        stream = stalling(journal)
        await anext(stream)
        kept.append((stream, await started(anext(stream), journal)))

    await asyncio.to_thread(asyncio.run, main())
    assert journal.lines() == ["started", "finally"]
