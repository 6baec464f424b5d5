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
    tracing,
    write,
)
from support.parity import Journal, started
from support.waiting import ended, forever, this_task, turns

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


async def test_break_alone_leaves_it_suspended(journal: Journal) -> None:
    stream = tracing(journal, 3)
    async for _ in stream:
        break
    await serving()
    assert journal.lines() == ["step 0"]
    assert [i async for i in stream] == [1, 2]
    assert journal.lines() == ["step 0", "step 1", "step 2", "exhausted", "finally"]


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


# Left to the garbage collector and the loop


async def test_break_without_a_reference_closes(journal: Journal) -> None:
    async for _ in tracing(journal):
        break
    gc.collect()
    await journal.wait("finally")
    assert journal.lines() == ["step 0", "finally"]
    await serving()


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
