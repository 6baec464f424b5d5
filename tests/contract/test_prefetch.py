"""`prefetch=n`: the worker runs ahead, and still nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wool
from contract.routines import serving
from support.parity import SOAK, Journal, Place
from support.waiting import caught, ended, forever, turns, until
from wool._protocol.transfer import AHEAD_BYTES

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]

variable: ContextVar[Any] = ContextVar("variable", default="default")


async def counting(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


async def writing(journal: Journal, n: int) -> AsyncIterator[int]:
    """Writes down each step that it makes."""
    try:
        for i in range(n):
            journal.write("step")
            yield i
    finally:
        journal.write("finally")


async def recording(n: int) -> AsyncIterator[Any]:
    """Yields numbers, and at the end all that was sent or thrown in."""
    seen: list[Any] = []
    for i in range(n):
        try:
            sent = yield i
        except KeyError as error:
            sent = error.args
        if sent is not None:
            seen.append(sent)
    yield seen


async def large(journal: Journal, n: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(n):
        journal.write("step")
        yield bytes(size)


def ahead(function: Any, prefetch: int) -> Any:
    return wool.routine(prefetch=prefetch)(function)


async def waiting_step(stream: Any, journal: Journal) -> asyncio.Task[Any]:
    """A task for the next step, once both sides wait: the generator may have begun before."""
    task = asyncio.ensure_future(anext(stream))
    await journal.wait("started")
    await serving()
    return task


@pytest.mark.parametrize("prefetch", [1, 2, 16, 1000])
async def test_all_items_in_order(prefetch: int) -> None:
    routine = ahead(counting, prefetch)
    assert [i async for i in routine(300)] == list(range(300))
    assert [i async for i in routine(0)] == []
    both = [[i async for i in routine(n)] for n in (1, 2)]
    assert both == [[0], [0, 1]]


async def test_an_exception_comes_after_the_items() -> None:
    @wool.routine(prefetch=8)
    async def failing() -> Any:
        for i in range(3):
            yield i
        raise KeyError("at the end")

    stream = failing()
    assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="at the end"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("prefetch", [1, 3, 40])
async def test_it_runs_so_far_ahead_and_no_further(
    prefetch: int, place: Place, journal: Journal
) -> None:
    stream = ahead(writing, prefetch)(journal, 1000)
    furthest = prefetch if place.remote else 0
    for taken in range(1, 6):
        assert await anext(stream) == taken - 1
        # The worker need not hear of every step at once, but of every one in time.
        await journal.wait("step", taken + (furthest + 1) // 2)
        await serving()
        assert journal.count("step") <= taken + furthest
    await stream.aclose()
    assert journal.lines()[-1] == "finally"


async def test_a_slow_consumer_bounds_the_bytes(place: Place, journal: Journal) -> None:
    """Whatever the number of items: the memory of both sides is bounded."""
    size = 1 << 20
    most = AHEAD_BYTES // size + 1
    stream = ahead(large, 1000)(journal, 100, size)
    for taken in range(1, 30):
        assert len(await anext(stream)) == size
        await serving()
        assert journal.count("step") <= taken + most
    if place.remote:
        await journal.wait("step", 29 + most // 2)
    await stream.aclose()


async def test_items_larger_than_all_that_may_be_ahead(journal: Journal) -> None:
    size = AHEAD_BYTES + 1
    seen = [len(item) async for item in ahead(large, 8)(journal, 4, size)]
    assert seen == [size] * 4


async def test_closing_drops_what_is_under_way(journal: Journal) -> None:
    async with contextlib.aclosing(ahead(writing, 16)(journal, 1000)) as stream:
        assert [await anext(stream) for _ in range(5)] == list(range(5))
    assert journal.lines()[-1] == "finally"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("known", [False, True])
async def test_closing_one_that_has_failed_ahead(
    known: bool, place: Place, journal: Journal
) -> None:
    """As locally: the step that has failed is none that was asked for."""

    @wool.routine(prefetch=8)
    async def failing() -> Any:
        yield 1
        yield 2
        journal.write("failed")
        raise KeyError("ahead")

    stream = failing()
    assert await anext(stream) == 1
    if place.remote:
        await journal.wait("failed")
    if known:
        await serving()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_leaving_the_loop_closes(journal: Journal) -> None:
    async for i in ahead(writing, 16)(journal, 1000):
        if i == 3:
            break
    await journal.wait("finally")


async def test_closing_one_that_waits(place: Place, journal: Journal) -> None:
    """The generator has got further, and waits for something that never happens."""

    @wool.routine(prefetch=4)
    async def waiting() -> Any:
        yield 1
        journal.write("started")
        try:
            await forever()
        finally:
            journal.write("finally")
        yield 2

    for _ in range(3):
        stream = waiting()
        assert await anext(stream) == 1
        if place.remote:
            await journal.wait("started")
        await stream.aclose()
        assert journal.lines() == (["started", "finally"] if place.remote else [])
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(journal.path)


async def test_what_is_sent_arrives_once_and_in_order() -> None:
    stream = ahead(recording, 4)(40)
    assert await anext(stream) == 0
    assert [await stream.asend(f"s{i}") for i in range(20)] == list(range(1, 21))
    assert await stream.athrow(KeyError("thrown")) == 21
    rest = [item async for item in stream]
    assert rest == [*range(22, 40), [*(f"s{i}" for i in range(20)), ("thrown",)]]


async def test_an_exception_that_is_thrown_in_ends_it(place: Place) -> None:
    """It takes effect where the generator has got to, so items under way come first."""
    stream = ahead(counting, 4)(1000)
    assert await anext(stream) == 0
    seen = []
    error = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as raised:
        seen.append(await stream.athrow(error))
        while True:
            seen.append(await anext(stream))
    assert raised.value is error
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) <= (5 if place.remote else 0)


async def test_a_cancel_while_it_waits_for_an_item(journal: Journal) -> None:
    @wool.routine(prefetch=4)
    async def patient() -> Any:
        yield 1
        try:
            journal.write("started")
            await forever()
        finally:
            journal.write("finally")

    stream = patient()
    assert await anext(stream) == 1
    task = await waiting_step(stream, journal)
    task.cancel("why")
    error = await caught(task)
    assert type(error) is asyncio.CancelledError
    assert journal.lines()[-1] == "finally"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("delay", range(1, 25, 3))
async def test_a_cancel_at_any_moment(delay: int, journal: Journal) -> None:
    """Whether it strikes or crosses an item, the generator is closed when the step has ended."""
    stream = ahead(writing, 4)(journal, 1000)
    task = asyncio.ensure_future(anext(stream))
    await turns(delay)
    task.cancel()
    await ended(task)
    if not task.cancelled():
        assert task.result() == 0
        await stream.aclose()
    assert journal.count("finally") == min(1, journal.count("step"))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


async def test_context_variables() -> None:
    @wool.routine(prefetch=4)
    async def setting(n: int) -> Any:
        for i in range(n):
            before = variable.get()
            variable.set(i)
            yield before

    variable.set("before")
    seen = [(item, variable.get()) async for item in setting(10)]
    assert seen == [("before", 0), *((i - 1, i) for i in range(1, 10))]


async def test_a_context_variable_that_is_unset() -> None:
    """That takes no bytes, and still belongs to its value, whatever is sent together with it."""

    @wool.routine(prefetch=64)
    async def setting(n: int) -> Any:
        for i in range(n):
            token = variable.set(i)
            yield i
            variable.reset(token)
            yield i
            yield i

    context: ContextVar[Any] = variable
    before = context.get()
    seen = [(item, context.get()) async for item in setting(20)]
    assert seen == [(i, value) for i in range(20) for value in (i, before, before)]


async def test_a_variable_set_between_steps(place: Place, journal: Journal) -> None:
    """The generator has it from the next step that it makes, though others wait to be taken."""

    @wool.routine(prefetch=4)
    async def telling() -> Any:
        while True:
            journal.write(variable.get())
            yield None

    stream = telling()
    await anext(stream)
    if place.remote:
        await until(lambda: journal.count("default") == 5)
        await turns(20)  # those are there by now, as a rule
    token = variable.set("new")
    try:
        await anext(stream)
        await until(lambda: journal.count("new"))
        await stream.aclose()
    finally:
        variable.reset(token)


async def test_a_value_changed_after_its_yield() -> None:
    """It is what it was when it was yielded, and no other one is it."""

    @wool.routine(prefetch=64)
    async def growing() -> Any:
        seen: list[int] = []
        for i in range(20):
            seen.append(i)
            yield seen

    # Without a pool it is one list, as for any generator.
    items = [list(item) async for item in growing()]
    assert items == [list(range(i + 1)) for i in range(20)]


async def test_no_value_waits_for_the_next(journal: Journal) -> None:
    """Not even while the generator blocks its thread."""

    @wool.routine(prefetch=64)
    async def blocking() -> Any:
        yield 1
        yield 2
        while not journal.count("taken"):
            time.sleep(0.01)
        yield 3

    stream = blocking()
    async with asyncio.timeout(30):
        assert [await anext(stream), await anext(stream)] == [1, 2]
    journal.write("taken")
    assert [item async for item in stream] == [3]


async def test_steps_after_the_end_of_the_worker(place: Place) -> None:
    """Values that have arrived are had; then there is an error."""
    if not place.elsewhere or place.name.startswith("served-"):
        return  # nobody would replace that worker

    @wool.routine(prefetch=100)
    async def dying(n: int) -> Any:
        for i in range(n):
            yield i
        yield os.getpid()
        await forever()

    stream = dying(50)
    seen = [await anext(stream) for _ in range(51)]
    assert seen[:50] == list(range(50))
    os.kill(seen[50], signal.SIGKILL)
    with pytest.raises(wool.WorkerLost):
        await anext(stream)
    await place.pool.wait(2)


async def test_garbage(journal: Journal) -> None:
    stream = ahead(writing, 8)(journal, 1000)
    await anext(stream)
    del stream
    await journal.wait("finally")


OPERATIONS = st.lists(
    st.sampled_from(["next", "send", "throw", "cancel", "turn"]), min_size=1, max_size=30
)
STREAMS = {n: ahead(recording, n) for n in (1, 2, 7, 64)}


@settings(
    max_examples=60 * (SOAK or 1),
    deadline=None,
    derandomize=not SOAK,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=OPERATIONS, prefetch=st.sampled_from(sorted(STREAMS)))
async def test_any_sequence_of_steps(operations: list[str], prefetch: int) -> None:
    """Every item once and in order, and all that is sent or thrown in too."""
    stream = STREAMS[prefetch](200)
    items, sent = [await anext(stream)], []
    for number, operation in enumerate(operations):
        if operation == "turn":
            await asyncio.sleep(0)
        elif operation == "cancel":
            # Once it has begun; an item that is there already is had without waiting.
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            await ended(task)
            if not task.cancelled() and task.exception() is None:
                items.append(task.result())
            elif not task.cancelled():
                raise task.exception()  # type: ignore[misc]
            else:
                assert [item async for item in stream] == []  # it has been closed
                return
        elif operation == "next":
            items.append(await anext(stream))
        elif operation == "send":
            sent.append(number)
            items.append(await stream.asend(number))
        else:
            sent.append((number,))
            items.append(await stream.athrow(KeyError(number)))
    rest = [item async for item in stream]
    assert [*items, *rest[:-1]] == list(range(200))
    assert rest[-1] == sent
