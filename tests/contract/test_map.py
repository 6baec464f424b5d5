"""`wool.map`: results of many calls, in order or as they come, so many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from typing import Any

import pytest

import wool
from contract.routines import add, serving
from contract.types import KeywordOnly
from support.parity import Journal
from support.waiting import ended, forever

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


@wool.routine
async def square(x: int) -> int:
    return x * x


@wool.routine
async def logged(journal: Journal, x: int) -> int:
    """Tell when it is in flight; return once told to."""
    journal.write("+")
    try:
        await journal.wait("go on")
    finally:
        journal.write("-")
    return x


@wool.routine
async def waiting_for(journal: Journal, x: int, line: str | None) -> int:
    """Wait for a line, then write one."""
    if line is not None:
        await journal.wait(line)
    journal.write(f"done {x}")
    return x


@wool.routine
async def hanging(journal: Journal, x: int) -> int:
    journal.write(f"started {x}")
    try:
        await forever()
    finally:
        journal.write("finally")
    return x


def most_at_once(lines: list[str]) -> int:
    return max(itertools.accumulate({"+": 1, "-": -1}.get(line, 0) for line in lines))


async def test_in_order() -> None:
    assert [x async for x in wool.map(square, range(100))] == [x * x for x in range(100)]


async def test_as_they_come() -> None:
    results = [x async for x in wool.map(square, range(100), ordered=False)]
    assert sorted(results) == [x * x for x in range(100)]


async def test_nothing_happens_before_the_first_step(journal: Journal) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        taken.append(1)
        yield 1

    results = wool.map(waiting_for, [journal], source(), [None])
    await serving()
    assert taken == [] and journal.lines() == []
    assert [x async for x in results] == [1]


async def test_several_iterables() -> None:
    assert [x async for x in wool.map(add, range(10), [1] * 5)] == [1, 2, 3, 4, 5]
    assert [x async for x in wool.map(add, itertools.count(), (10, 20))] == [10, 21]


async def test_async_iterables() -> None:
    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    assert [x async for x in wool.map(square, numbers(5))] == [0, 1, 4, 9, 16]
    assert [x async for x in wool.map(add, numbers(5), [10, 20])] == [10, 21]


async def test_order_does_not_depend_on_who_is_first(journal: Journal) -> None:
    """The first waits for the last."""
    lines = ["done 2", None, None]
    results = [x async for x in wool.map(waiting_for, [journal] * 3, range(3), lines, limit=3)]
    assert results == [0, 1, 2]
    written = journal.lines()
    assert written.index("done 0") > written.index("done 2")


async def test_unordered_gives_first_what_is_done_first(journal: Journal) -> None:
    arguments = [journal] * 3, range(3), ["go on", None, None]
    stream = wool.map(waiting_for, *arguments, limit=3, ordered=False)
    first = {await anext(stream), await anext(stream)}
    assert first == {1, 2}
    journal.write("go on")
    assert [x async for x in stream] == [0]


async def test_ordered_gives_the_first_before_the_last_is_done(journal: Journal) -> None:
    stream = wool.map(waiting_for, [journal] * 3, range(3), [None, None, "go on"], limit=3)
    assert [await anext(stream), await anext(stream)] == [0, 1]
    journal.write("go on")
    assert [x async for x in stream] == [2]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("limit", [1, 3])
async def test_limit(limit: int, ordered: bool, journal: Journal) -> None:
    async def collect() -> list[int]:
        arguments = [journal] * 10, range(10)
        return [x async for x in wool.map(logged, *arguments, limit=limit, ordered=ordered)]

    task = asyncio.create_task(collect())
    await journal.wait("+", limit)
    await serving()
    assert journal.count("+") == limit
    journal.write("go on")
    assert sorted(await task) == list(range(10))
    assert most_at_once(journal.lines()) == limit


async def test_the_input_is_taken_as_needed() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    async with contextlib.aclosing(wool.map(square, source(), limit=2)) as stream:
        assert [await anext(stream) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert 5 <= len(taken) <= 20


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_exception_cancels_the_rest(ordered: bool, journal: Journal) -> None:
    @wool.routine
    async def fail_or_hang(x: int) -> int:
        if x == 0:
            await journal.wait("started 1")
            await journal.wait("started 2")
            raise KeywordOnly(code=x)
        return await hanging(journal, x)

    stream = wool.map(fail_or_hang, range(3), limit=3, ordered=ordered)
    with pytest.raises(KeywordOnly) as raised:
        async for _ in stream:
            pass
    assert raised.value.code == 0
    assert journal.count("finally") == 2
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


async def test_an_exception_of_the_input() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("input")

    seen = []
    with pytest.raises(KeyError, match="input"):
        async for x in wool.map(square, source(), limit=1):
            seen.append(x)
    assert seen in ([], [1], [1, 4])
    await serving()


@pytest.mark.parametrize("ordered", [True, False])
async def test_results_are_not_kept(ordered: bool) -> None:
    """As `concurrent.futures` has it: who takes a result has the only reference to it."""

    @wool.routine
    async def make(x: int) -> KeywordOnly:
        return KeywordOnly(code=x)

    taken: list[weakref.ref[KeywordOnly]] = []
    async for result in wool.map(make, range(10), ordered=ordered):
        taken.append(weakref.ref(result))
        del result
        assert taken[-1]() is None
    assert len(taken) == 10


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        async for _ in wool.map(square, [1], [2]):
            pass
    await serving()


async def test_closing_cancels(journal: Journal) -> None:
    @wool.routine
    async def one_or_hang(x: int) -> int:
        return x if x == 0 else await hanging(journal, x)

    stream = wool.map(one_or_hang, range(4), limit=4)
    assert await anext(stream) == 0
    for x in (1, 2, 3):
        await journal.wait(f"started {x}")
    await stream.aclose()
    assert journal.count("finally") == 3
    await serving()


async def test_cancelling_the_consumer_cancels(journal: Journal) -> None:
    async def consume() -> None:
        async for _ in wool.map(hanging, [journal] * 3, range(3), limit=3):
            pass

    task = asyncio.create_task(consume())
    for x in range(3):
        await journal.wait(f"started {x}")
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.count("finally") == 3
    await serving()


@wool.routine
async def stream(x: int) -> AsyncIterator[int]:
    yield x


@pytest.mark.parametrize("function", [abs, stream])
async def test_what_cannot_be_awaited(function: Any) -> None:
    """A sync function, or a stream: the error says what to do."""
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) has returned .*`async def`"):
        [x async for x in wool.map(function, [1])]


@wool.routine
async def late_but_one(n: int, journal: Journal) -> int:
    """Fails at once for one number; the others wait for that."""
    if n == 3:
        journal.write("failed")
        raise LookupError(n)
    await journal.wait("failed")
    return n


async def test_what_precedes_an_exception_comes_first(journal: Journal) -> None:
    seen: list[int] = []
    with pytest.raises(LookupError):
        async for value in wool.map(late_but_one, range(6), repeat(journal), limit=6):
            seen.append(value)
    assert seen == [0, 1, 2]


async def test_no_call_is_made_after_one_has_failed(journal: Journal) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(3, 100):
            taken.append(n)
            yield n

    with pytest.raises(LookupError):
        async for _ in wool.map(late_but_one, numbers(), repeat(journal), limit=2):
            pass
    assert taken == [3, 4]


@pytest.mark.parametrize("ordered", [True, False])
async def test_exceptions_as_results(ordered: bool, journal: Journal) -> None:
    mapped = wool.map(
        late_but_one, range(6), repeat(journal), ordered=ordered, return_exceptions=True
    )
    seen = [type(value) if isinstance(value, Exception) else value async for value in mapped]
    assert sorted(seen, key=str) == [0, 1, 2, 4, 5, LookupError]
    assert not ordered or seen == [0, 1, 2, LookupError, 4, 5]


# Chunks -----------------------------------------------------------------------------------------


async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


@pytest.mark.parametrize("chunksize", [3, 1000])
@pytest.mark.parametrize("source", [range, numbers])
async def test_in_chunks(source: Callable[[int], Any], chunksize: int) -> None:
    squares = [x * x for x in range(100)]
    assert [x async for x in wool.map(square, source(100), chunksize=chunksize)] == squares
    unordered = wool.map(square, source(100), chunksize=chunksize, ordered=False)
    assert sorted([x async for x in unordered]) == squares


async def test_results_of_a_chunk_come_one_by_one(journal: Journal) -> None:
    lines = [None, "go on", None]
    stream = wool.map(waiting_for, [journal] * 3, range(3), lines, chunksize=3)
    assert await anext(stream) == 0
    journal.write("go on")
    assert [x async for x in stream] == [1, 2]


async def test_an_exception_in_a_chunk(journal: Journal) -> None:
    journal.write("failed")
    inputs = [5, 3, 4, 6], repeat(journal)
    mapped = wool.map(late_but_one, *inputs, chunksize=9, return_exceptions=True)
    assert [type(x) async for x in mapped] == [int, LookupError, int, int]
    seen: list[int] = []
    with pytest.raises(LookupError) as raised:
        async for value in wool.map(late_but_one, *inputs, chunksize=9):
            seen.append(value)
    assert seen == [5]
    assert raised.traceback[-1].name == "late_but_one"


async def test_nothing_of_a_chunk_runs_after_an_exception(journal: Journal) -> None:
    @wool.routine
    async def tell_or_fail(x: int) -> None:
        journal.write(f"ran {x}")
        if x == 1:
            raise KeyError(x)

    with pytest.raises(KeyError):
        async for _ in wool.map(tell_or_fail, range(3), chunksize=3):
            pass
    assert journal.lines() == ["ran 0", "ran 1"]


async def test_a_chunk_is_cancelled(journal: Journal) -> None:
    stream = wool.map(hanging, [journal] * 4, range(4), chunksize=2)
    step = asyncio.ensure_future(anext(stream))
    await journal.wait("started 0")
    await journal.wait("started 2")
    step.cancel()
    await ended(step)
    assert sorted(journal.lines()) == ["finally", "finally", "started 0", "started 2"]
