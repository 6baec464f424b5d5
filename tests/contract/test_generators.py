"""Async generators: stepping, sending, ends, and what surrounds a step."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    count,
    serving,
    tracing,
)
from support.parity import Journal, started
from support.waiting import forever, this_task

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# Stepping


async def test_async_for() -> None:
    seen = []
    async for i in count(5):
        seen.append(i)
    else:
        seen.append("else")
    assert seen == [0, 1, 2, 3, 4, "else"]


async def test_one_step_at_a_time(journal: Journal) -> None:
    """Nothing runs ahead of the caller."""
    stream = tracing(journal, 3)
    for i in range(3):
        assert await anext(stream) == i
        await serving()
        assert journal.lines() == [f"step {n}" for n in range(i + 1)]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert journal.lines()[3:] == ["exhausted", "finally"]


async def test_steps_are_made_when_awaited(journal: Journal) -> None:
    stream = tracing(journal)
    step = stream.__anext__()
    await serving()
    assert journal.lines() == []
    assert await step == 0
    await stream.aclose()


async def test_the_example_of_the_documentation() -> None:
    @wool.routine
    async def search(query: str) -> Any:
        lo, hi = 0, 25
        while lo <= hi:
            mid = (lo + hi) // 2
            hint = yield chr(97 + mid)
            if hint == "higher":
                lo = mid + 1
            elif hint == "lower":
                hi = mid - 1
            else:
                return

    stream = search("q")
    guess, guesses = await anext(stream), []
    while guess != "q":
        guesses.append(guess)
        guess = await stream.asend("higher" if guess < "q" else "lower")
    with pytest.raises(StopAsyncIteration):
        await stream.asend("found")
    assert guesses == ["m", "t", "p", "r"]


async def test_large_items() -> None:
    @wool.routine
    async def blocks(n: int) -> Any:
        size = 0
        for i in range(n):
            received = yield bytes([i]) * 1_000_000
            size += len(received or b"")
        yield size

    stream = blocks(5)
    block = await anext(stream)
    for i in range(5):
        assert block == bytes([i]) * 1_000_000
        block = await stream.asend(block)
    assert block == 5_000_000
    await stream.aclose()


async def test_hundreds_open_at_once() -> None:
    streams = [count(3, n) for n in range(500)]
    for step in range(3):
        values = await asyncio.gather(*(anext(stream) for stream in streams))
        assert values == [n + step for n in range(500)]
    assert await asyncio.gather(*(anext(stream, "end") for stream in streams)) == ["end"] * 500


async def test_a_step_after_one_that_was_cancelled(journal: Journal) -> None:
    """The cancel belonged to the task that made that step: a later one knows nothing of it."""

    @wool.routine
    async def stubborn(journal: Journal) -> Any:
        try:
            journal.write("started")
            await forever()
        except asyncio.CancelledError:
            yield this_task().cancelling()
        yield this_task().cancelling()
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(add(1, "not a number"))  # type: ignore[arg-type]
                await forever()
        yield "grouped"

    stream = stubborn(journal)
    task = await started(stream.__anext__(), journal)
    task.cancel()
    assert await task == 1
    assert await anext(stream) == 0
    assert await anext(stream) == "grouped"
    await stream.aclose()


# Already running


async def test_closing_while_closing(journal: Journal) -> None:
    @wool.routine
    async def slow_to_close() -> Any:
        try:
            yield 1
        finally:
            journal.write("started")
            await journal.wait("go on")
            journal.write("finally")

    stream = slow_to_close()
    await anext(stream)
    closing = await started(stream.aclose(), journal)
    with pytest.raises(RuntimeError, match=r"^aclose\(\): asynchronous generator is already"):
        await stream.aclose()
    journal.write("go on")
    await closing
    assert journal.lines() == ["started", "go on", "finally"]


# One task, one context


async def test_a_timeout_across_a_yield(journal: Journal) -> None:
    @wool.routine
    async def bounded() -> Any:
        try:
            async with asyncio.timeout(None) as timeout:
                yield "inside"
                timeout.reschedule(asyncio.get_running_loop().time())
                await forever()
        except TimeoutError:
            yield "timed out"
        yield "after"

    assert [value async for value in bounded()] == ["inside", "timed out", "after"]


async def test_a_task_group_across_a_yield(journal: Journal) -> None:
    @wool.routine
    async def grouped() -> Any:
        async def child(name: str) -> str:
            journal.write(f"child {name}")
            await journal.wait("go on")
            return name

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(name)) for name in "ab"]
            yield "suspended"
        yield [task.result() for task in tasks]

    stream = grouped()
    assert await anext(stream) == "suspended"
    await journal.wait("child b")
    journal.write("go on")
    assert await anext(stream) == ["a", "b"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_one_task_and_thread_for_all_steps() -> None:
    @wool.routine
    async def identities() -> Any:
        import threading

        for _ in range(4):
            yield id(asyncio.current_task()), threading.get_ident()
            await asyncio.sleep(0)

    assert len({item async for item in identities()}) == 1
