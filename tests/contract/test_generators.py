"""Async generators: stepping, sending, ends, and what surrounds a step."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import wool
from contract.routines import (
    add,
    count,
    echoing,
    serving,
    setting,
    stalling,
    stream_fail,
    tracing,
    tree,
)
from support.parity import Journal, Place, started
from support.waiting import caught, ended, forever, this_task, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# Stepping


async def test_async_for() -> None:
    seen = []
    async for i in count(5):
        seen.append(i)
    else:
        seen.append("else")
    assert seen == [0, 1, 2, 3, 4, "else"]


async def test_comprehensions() -> None:
    assert [i async for i in count(3) if i] == [1, 2]
    assert {i: i async for i in count(2)} == {0: 0, 1: 1}
    assert [(i, j) async for i in count(2) async for j in count(i + 1)] == [(0, 0), (1, 0), (1, 1)]


async def test_anext() -> None:
    stream = count(2)
    assert aiter(stream) is stream
    assert await anext(stream) == 0
    assert await stream.__anext__() == 1
    assert await anext(stream, "default") == "default"
    with pytest.raises(StopAsyncIteration) as raised:
        await anext(stream)
    assert raised.value.args == ()


async def test_a_thousand_items() -> None:
    assert [i async for i in count(1000)] == list(range(1000))


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


async def test_state_lives_between_steps() -> None:
    @wool.routine
    async def average() -> Any:
        total, n = 0.0, 0
        while True:
            value = yield total / n if n else None
            total += value
            n += 1

    stream = average()
    assert await anext(stream) is None
    assert [await stream.asend(v) for v in (10, 20, 60)] == [10, 15, 30]
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


async def test_two_interleaved() -> None:
    first, second = echoing(), echoing()
    assert [await anext(first), await anext(second)] == ["ready", "ready"]
    for i in range(20):
        assert [await first.asend(i), await second.asend(-i)] == [i, -i]
    await first.aclose()
    assert await second.asend("on") == "on"
    await second.aclose()


async def test_steps_of_several_streams_at_once() -> None:
    streams = [echoing() for _ in range(50)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    for value in range(3):
        sent = [(value, n) for n in range(50)]
        results = await asyncio.gather(
            *(stream.asend(v) for stream, v in zip(streams, sent, strict=True))
        )
        assert results == sent
    await asyncio.gather(*(stream.aclose() for stream in streams))


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


async def test_streams_that_hold_streams() -> None:
    @wool.routine
    async def pairs(n: int) -> Any:
        left, right = count(n), count(n, 100)
        async for a in left:
            yield a, await anext(right)
        await right.aclose()

    assert [p async for p in pairs(3)] == [(0, 100), (1, 101), (2, 102)]


async def test_awaits_between_the_yields() -> None:
    @wool.routine
    async def busy() -> Any:
        for i in range(3):
            await asyncio.sleep(0)
            value = await add(i, 10)
            await turns(2)
            yield value

    assert [i async for i in busy()] == [10, 11, 12]


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


async def test_a_closure_generator() -> None:
    words = ["a", "b"]

    class Marker:
        pass

    @wool.routine
    async def mark(suffix: str) -> Any:
        for word in words:
            yield Marker, word + suffix

    assert [item async for item in mark("!")] == [(Marker, "a!"), (Marker, "b!")]


async def test_recursion() -> None:
    assert [leaf async for leaf in tree(0)] == ["leaf"]
    assert [leaf async for leaf in tree(3)] == ["321leaf"] * 8


# Sending


async def test_asend() -> None:
    stream = echoing()
    assert await stream.asend(None) == "ready"
    for value in (1, None, "text", [1, {"a": 2}], ValueError, b"x" * 100_000):
        assert await stream.asend(value) == value
    with pytest.raises(StopAsyncIteration):
        await stream.asend("stop")
    with pytest.raises(StopAsyncIteration):
        await stream.asend(1)


@pytest.mark.parametrize("value", [0, 1, "", False, []], ids=repr)
async def test_asend_to_an_unstarted_one(value: Any, journal: Journal) -> None:
    stream = tracing(journal)
    with pytest.raises(TypeError) as raised:
        await stream.asend(value)
    assert raised.value.args == (
        "can't send non-None value to a just-started async generator",
    )  # fmt: skip
    assert journal.lines() == []
    assert [i async for i in stream] == [0, 1, 2]


# Ends


async def test_after_the_end() -> None:
    stream = count(1)
    assert await anext(stream) == 0
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert [i async for i in stream] == []
    assert await anext(stream, None) is None


async def test_after_an_exception() -> None:
    stream = stream_fail(ValueError("x"), 2)
    assert [await anext(stream), await anext(stream)] == [0, 1]
    with pytest.raises(ValueError):
        await anext(stream)
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await stream.asend(1)
    await stream.aclose()


async def test_a_step_cannot_be_awaited_twice() -> None:
    stream = count(3)
    step = stream.__anext__()
    assert await step == 0
    with pytest.raises(RuntimeError, match="cannot reuse already awaited __anext__"):
        await step
    assert await anext(stream) == 1
    await stream.aclose()


# Already running


async def test_a_second_step_while_one_is_running(journal: Journal) -> None:
    stream = stalling(journal)
    assert await anext(stream) == "first"
    running = await started(anext(stream), journal)

    second = await caught(anext(stream))
    assert type(second) is RuntimeError
    assert second.args == ("anext(): asynchronous generator is already running",)
    sent = await caught(stream.asend(1))
    assert type(sent) is RuntimeError
    assert sent.args == ("anext(): asynchronous generator is already running",)
    thrown = await caught(stream.athrow(ValueError("x")))
    assert type(thrown) is RuntimeError
    assert thrown.args == ("athrow(): asynchronous generator is already running",)
    closed = await caught(stream.aclose())
    assert type(closed) is RuntimeError
    assert closed.args == ("aclose(): asynchronous generator is already running",)

    assert not running.done()
    running.cancel()
    await ended(running)
    assert running.cancelled()
    assert journal.lines() == ["started", "finally"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_step_goes_on_after_a_second_one_was_refused(journal: Journal) -> None:
    @wool.routine
    async def patient() -> Any:
        journal.write("started")
        await journal.wait("go on")
        yield 1
        yield 2

    stream = patient()
    running = await started(anext(stream), journal)
    with pytest.raises(RuntimeError, match="already running"):
        await anext(stream)
    journal.write("go on")
    assert await running == 1
    assert await anext(stream) == 2
    await stream.aclose()


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


async def test_a_context_variable_is_reset_across_a_yield() -> None:
    assert [value async for value in setting()] == ["set inside", "set inside", "unset"]


async def test_a_context_variable_of_a_closure() -> None:
    @wool.routine
    async def scoped() -> Any:
        import contextvars

        variable: contextvars.ContextVar[int] = contextvars.ContextVar("scoped")
        tokens = []
        for i in range(3):
            tokens.append(variable.set(i))
            yield variable.get()
        for token in reversed(tokens):
            variable.reset(token)
            yield variable.get("unset")

    assert [value async for value in scoped()] == [0, 1, 2, 1, 0, "unset"]


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


async def test_closing_that_is_cancelled_too_late(place: Place, journal: Journal) -> None:
    """The clean-up comes to its end without hearing of the cancel, which is not lost."""
    if not place.remote:
        pytest.skip("its clean-up blocks the loop")

    @wool.routine
    async def blocking() -> Any:
        try:
            yield 1
        finally:
            journal.write("cleaning")
            while not journal.count("cancelled"):
                time.sleep(0.01)

    stream = blocking()
    assert await anext(stream) == 1
    task = asyncio.ensure_future(stream.aclose())
    await journal.wait("cleaning")
    task.cancel("why")
    await turns()
    journal.write("cancelled")
    error = await caught(task)
    assert type(error) is asyncio.CancelledError
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
