"""Live objects as arguments and results: they stay where they are and are used from elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import threading
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import wool
from contract.lending import (
    Feed,
    Ledger,
    Tape,
    break_after,
    call,
    close,
    counting,
    doubled,
    drain,
    drive,
    forward,
    make_counter,
    make_counters,
    patient,
    same,
    take,
)
from support.parity import AND_SERVED, Journal, Place
from support.waiting import caught, until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", AND_SERVED, indirect=True, scope="module"),
]


async def numbers(n: int = 10) -> AsyncIterator[int]:
    for i in range(n):
        yield i


# Generators and iterators of the caller


async def test_a_running_generator_goes_on_where_it_is() -> None:
    generator = numbers()
    assert await anext(generator) == 0
    assert await take(generator, 2) == [1, 2]
    assert await anext(generator) == 3
    assert await take(generator, 3) == [4, 5, 6]
    assert [value async for value in generator] == [7, 8, 9]


async def test_an_iterator_that_is_no_generator() -> None:
    tape = Tape(1, "two", None)
    assert await take(tape, 1) == [1]
    assert await drain(tape) == ["two", None]
    assert tape.asked == 4


async def test_it_runs_in_the_process_and_loop_of_its_owner() -> None:
    async def places() -> AsyncIterator[Any]:
        while True:
            yield os.getpid(), asyncio.get_running_loop() is loop

    loop = asyncio.get_running_loop()
    assert await take(places(), 3) == [(os.getpid(), True)] * 3


async def test_one_step_for_each_anext() -> None:
    steps: list[int] = []

    async def counted() -> AsyncIterator[int]:
        for i in range(100):
            steps.append(i)
            yield i

    assert await take(counted(), 7) == list(range(7))
    assert steps == list(range(7))


async def test_nested_in_containers_and_objects() -> None:
    @wool.routine
    async def merge(parts: Any) -> list[int]:
        return [v for name in sorted(parts) for source in parts[name] async for v in source]

    assert await merge({"a": [numbers(2), Tape(7)], "b": (numbers(1),)}) == [0, 1, 7, 0]


async def test_the_same_generator_twice_is_one() -> None:
    @wool.routine
    async def alternate(a: Any, b: Any) -> Any:
        return a is b, await anext(a), await anext(b)

    generator = numbers()
    assert await alternate(generator, generator) == (True, 0, 1)


async def test_two_consumers_at_once_share_it() -> None:
    tape = Tape(*range(40))
    parts = await asyncio.gather(*(take(tape, 10) for _ in range(4)))
    assert sorted(value for part in parts for value in part) == list(range(40))


async def test_a_stream_of_a_routine_that_has_begun() -> None:
    @wool.routine
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    stream = count(6)
    assert await anext(stream) == 0
    assert await take(stream, 2) == [1, 2]
    assert await drain(stream) == [3, 4, 5]
    assert [value async for value in stream] == []


# Sending, throwing, closing


async def test_aclose_closes_it_here(journal: Journal) -> None:
    generator = counting(journal)
    assert await anext(generator) == 0
    await close(generator)
    assert journal.lines() == ["counting ends"]
    assert [value async for value in generator] == []
    await close(generator)


async def test_dropping_it_leaves_it_to_its_owner(journal: Journal) -> None:
    generator = counting(journal)
    assert await break_after(generator, 3) == 0
    gc.collect()
    assert await anext(generator) == 3
    assert journal.lines() == []
    await generator.aclose()
    assert journal.lines() == ["counting ends"]


async def test_dropped_by_all_it_is_closed(journal: Journal) -> None:
    assert await break_after(counting(journal), 3) == 0
    gc.collect()
    await journal.wait("counting ends")


async def test_a_pipeline_stage_over_a_generator_here(journal: Journal) -> None:
    async with aclosing(doubled(counting(journal, 4))) as stream:
        assert [value async for value in stream] == [0, 2, 4, 6]
    assert journal.lines() == ["counting ends"]


# Exceptions


class Broke(Exception):
    def __init__(self, *, missing: int) -> None:
        super().__init__(f"{missing} short")
        self.missing = missing


async def failing() -> AsyncIterator[int]:
    yield 1
    raise Broke(missing=3)


async def test_an_exception_passes_through(place: Place) -> None:
    error = await caught(drain(failing()))
    assert type(error) is Broke
    assert (error.args, error.missing) == (("3 short",), 3)
    text = "".join(traceback.format_exception(error))
    assert "raise Broke(missing=3)" in text
    assert "return [value async for value in source]" in text


async def test_a_value_that_cannot_travel(place: Place) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")

    async def locks() -> AsyncIterator[Any]:
        yield asyncio.get_running_loop().create_future()
        yield 2

    first, second = await drive(locks(), ("__anext__",), ("__anext__",))
    assert type(first) is wool.SerializationError
    assert "locks" in str(first)
    assert second == 2


# Cancelling


async def waiting(journal: Journal) -> AsyncIterator[int]:
    yield 1
    try:
        journal.write("waits")
        await asyncio.sleep(3600)
    except BaseException as error:
        await asyncio.sleep(0.01)
        journal.write(f"{type(error).__name__} {error.args}")
        raise
    finally:
        journal.write("source ends")


async def test_a_cancel_reaches_the_owner_and_waits(journal: Journal) -> None:
    task = asyncio.create_task(patient(waiting(journal), journal))
    await journal.wait("waits")
    task.cancel("enough")
    error = await caught(task)
    assert (type(error), error.args) == (asyncio.CancelledError, ("enough",))
    assert journal.lines() == [
        "got 1",
        "waits",
        "CancelledError ('enough',)",
        "source ends",
        "CancelledError",
        "consumer ends",
    ]


@wool.routine
async def cancel_late(source: Any, journal: Journal) -> Any:
    """Cancels a step that the owner has made already; the source is asked again if need be."""
    step = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    if wool.current_call() is not None:
        journal.block("steps")
    step.cancel("late")
    try:
        outcome: Any = await step
    except BaseException as error:
        outcome = type(error), error.args
    journal.write("cancelled")
    return outcome, [value async for value in source]


LATE = asyncio.CancelledError, ("late",)


async def test_a_cancel_that_crosses_a_value(journal: Journal) -> None:
    async def source() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(0)
            journal.write("steps")
            yield 1
            journal.write("goes on")
        finally:
            await asyncio.sleep(0.01)
            journal.write("source ends")

    assert await cancel_late(source(), journal) == (LATE, [])
    assert [line for line in journal.lines() if line != "steps"] == ["source ends", "cancelled"]


async def test_a_cancel_that_crosses_a_value_and_is_swallowed(journal: Journal) -> None:
    async def source() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(0)
            journal.write("steps")
            yield 1
        except asyncio.CancelledError:
            yield 2
        yield 3

    assert await cancel_late(source(), journal) == (2, [3])


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        (asyncio.Lock, "acquire"),
        (asyncio.Lock, "__aenter__"),
        (asyncio.Semaphore, "acquire"),
        (asyncio.Condition, "__aenter__"),
    ],
)
async def test_a_cancel_that_crosses_a_lock(kind: Any, operation: str, journal: Journal) -> None:
    """A task that has been cancelled does not know that it holds the lock, so it does not."""

    @wool.routine
    async def cancel_late(lock: Any, operation: str, journal: Journal) -> None:
        step = asyncio.ensure_future(getattr(lock, operation)())
        await asyncio.sleep(0)
        journal.write("asks")
        if wool.current_call() is not None:
            journal.block("held")
        step.cancel("late")
        await step

    lock = kind()
    await lock.acquire()
    task = asyncio.create_task(cancel_late(lock, operation, journal))
    await journal.wait("asks")
    lock.release()
    while not (lock.locked() or task.done()):
        await asyncio.sleep(0)
    journal.write("held")
    error = await caught(task)
    assert (type(error), error.args) == LATE
    assert not lock.locked()


class Unsent(Exception):
    """Has a part that cannot be pickled."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.frame = inspect.currentframe()


class Unknown(Exception):
    """Cannot be rebuilt."""

    def __reduce__(self) -> Any:
        return raises, ()


def raises() -> None:
    raise LookupError("not here")


@wool.routine
async def fail_inside(room: Any, error: str) -> None:
    async with room:
        raise {"unsent": Unsent, "unknown": Unknown}[error]("in there")


async def test_leaving_is_told_of_the_exception() -> None:
    class Room:
        def __init__(self) -> None:
            self.left: list[Any] = []

        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
            lines = traceback.extract_tb(trace)
            self.left.append((kind, str(error), lines[-1].name if lines else None))
            if error is not None:
                raise error

    @wool.routine
    async def use(room: Any) -> bool:
        async with room:
            pass
        error = ValueError("in there")
        try:
            async with room:
                raise error
        except ValueError as caught:
            return caught is error
        return False

    room = wool.reference(Room())
    assert await use(room)
    assert room.left == [(None, "None", None), (ValueError, "in there", "use")]
    await caught(fail_inside(room, "unsent"))
    assert room.left[2] == (Unsent, "in there", "fail_inside")
    await caught(fail_inside(room, "unknown"))
    assert room.left[3][2] in ("fail_inside", None)


@pytest.mark.parametrize("closes", [False, True])
async def test_a_cancel_before_leaving_has_begun(
    closes: bool, place: Place, journal: Journal
) -> None:
    """An await begins at once, so what was entered is left, however early the cancel is."""

    async def leaves() -> None:
        journal.write("leaves")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            journal.write(f"cancelled {error.args}")
            raise

    class Room:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *_: object) -> None:
            await leaves()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await leaves()

    @wool.routine
    async def cancel_early(room: Any, journal: Journal) -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def use() -> None:
            if closes:
                assert await anext(room) == 1
            async with aclosing(room) if closes else room:
                inside.set()
                await leave.wait()

        task = asyncio.ensure_future(use())
        await inside.wait()
        journal.write("inside")
        await journal.wait("busy")
        leave.set()
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel("early")
        for _ in range(3):
            await asyncio.sleep(0)
        journal.write("left")
        await task

    room = source() if closes else wool.reference(Room())
    task = asyncio.create_task(cancel_early(room, journal))
    await journal.wait("inside")
    journal.write("busy")
    if place.name != "local":
        journal.block("left")
    error = await caught(task)
    assert (type(error), error.args) == (asyncio.CancelledError, ("early",))
    assert sorted(journal.lines()) == ["busy", "cancelled ('early',)", "inside", "leaves", "left"]


async def test_steps_after_a_cancelled_one(journal: Journal) -> None:
    """An iterator, unlike a generator, goes on after a step was cancelled."""

    class Slow:
        steps = 0

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            self.steps += 1
            if self.steps == 2:
                journal.write("waits")
                await asyncio.sleep(3600)
            return self.steps

    @wool.routine
    async def skip_one(source: Any, journal: Journal) -> Any:
        first = await anext(source)
        step = asyncio.ensure_future(anext(source))
        await journal.wait("waits")
        step.cancel()
        await asyncio.wait([step])
        return first, step.cancelled(), await anext(source)

    assert await skip_one(Slow(), journal) == (1, True, 3)


# One task, one context


async def test_a_timeout_and_a_token_across_yields() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")

    async def careful() -> AsyncIterator[Any]:
        token = variable.set("set")
        async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, "done"))
            yield variable.get()
            yield await task
        variable.reset(token)
        yield variable.get()

    assert await drain(careful()) == ["set", "done", "default"]


async def test_it_sees_the_context_it_was_passed_in() -> None:
    async def looking() -> AsyncIterator[str]:
        yield variable.get()

    variable.set("mine")
    assert await drain(looking()) == ["mine"]


# Callbacks


async def test_a_bound_method() -> None:
    ledger = Ledger()
    assert await call(wool.reference(ledger.note), "a", loudly=True) == 1
    assert ledger.entries == ["a!"]


async def test_a_routine_called_by_a_callback() -> None:
    async def nested(n: int) -> Any:
        return await same(n) + await same(1)

    assert await call(wool.reference(nested), 4) == 5


# Objects


async def test_an_object_with_async_methods() -> None:
    ledger = Ledger()
    assert wool.reference(ledger) is ledger

    @wool.routine
    async def write(ledger: Any) -> Any:
        async with ledger as same:
            count = await ledger.note("x")
            return same is ledger, count, [page async for page in ledger.pages(2)]

    assert await write(wool.reference(ledger)) == (True, 2, [(0, 2), (1, 2)])
    assert ledger.entries == ["opened", "x", "closed"]


async def test_a_queue_between_here_and_there() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(2)

    @wool.routine
    async def produce(queue: Any, n: int) -> None:
        for i in range(n):
            await queue.put(i)

    async with asyncio.TaskGroup() as group:
        group.create_task(produce(queue, 5))
        assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_events_semaphores_and_conditions() -> None:
    @wool.routine
    async def wait(event: Any, semaphore: Any, condition: Any) -> str:
        await event.wait()
        async with semaphore, condition:
            return "done"

    event, semaphore, condition = asyncio.Event(), asyncio.Semaphore(1), asyncio.Condition()
    async with asyncio.TaskGroup() as group, condition:
        waiting = group.create_task(wait(event, semaphore, condition))
        event.set()
    assert waiting.result() == "done"
    assert not semaphore.locked()
    assert not condition.locked()


async def test_a_lock_between_two_workers(journal: Journal) -> None:
    lock = asyncio.Lock()

    @wool.routine
    async def critical(lock: Any, journal: Journal) -> None:
        async with lock:
            journal.write("in")
            await asyncio.sleep(0.005)
            journal.write("out")

    await asyncio.gather(*(critical(lock, journal) for _ in range(6)))
    assert journal.lines() == ["in", "out"] * 6


async def test_an_async_iterable() -> None:
    feed = wool.reference(Feed(3))

    @wool.routine
    async def twice(feed: Any) -> list[int]:
        return [value async for value in feed] + [value async for value in feed]

    assert await twice(feed) == [0, 1, 2, 0, 1, 2]


async def test_what_cannot_be_marked() -> None:
    with pytest.raises(TypeError, match="Write `async def`"):
        wool.reference(print)
    with pytest.raises(TypeError, match="has none"):
        wool.reference(object())
    with pytest.raises(TypeError, match="has none"):
        wool.reference(lambda: None)

    class Slotted:
        __slots__ = ()

        async def work(self) -> None: ...

    with pytest.raises(TypeError, match="cannot be marked"):
        wool.reference(Slotted())


# Coming home, and going on


async def test_a_reference_that_comes_back_is_the_object() -> None:
    generator, tape, ledger = numbers(), Tape(1), wool.reference(Ledger())

    async def report() -> None: ...

    wool.reference(report)
    for value in (generator, tape, ledger, report):
        assert await same(value) is value
        [found] = (await same({"nested": [value]}))["nested"]
        assert found is value
    assert await anext(generator) == 0


async def test_passed_on_to_another_routine(journal: Journal) -> None:
    generator = counting(journal, 4)
    assert await forward(generator) == [0, 1, 2, 3]
    assert journal.lines() == ["counting ends"]


async def test_a_cancel_passes_all_that_pass_it_on(journal: Journal) -> None:
    task = asyncio.create_task(forward(waiting(journal)))
    await journal.wait("waits")
    task.cancel("all")
    assert type(await caught(task)) is asyncio.CancelledError
    assert journal.lines() == ["waits", "CancelledError ('all',)", "source ends"]


# As results


async def test_closing_what_a_routine_returned(journal: Journal) -> None:
    generator = await make_counter(journal)
    assert isinstance(generator, AsyncGenerator)
    assert await anext(generator) == 1
    await generator.aclose()
    assert journal.lines() == ["counting ends"]
    assert [value async for value in generator] == []


async def test_generators_that_a_stream_yields(journal: Journal) -> None:
    found = [[v async for v in generator] async for generator in make_counters(journal, 4)]
    assert found == [[1, 2]] * 4
    await until(lambda: journal.count("counting ends") == 4)


async def test_what_a_routine_returned_goes_to_another(journal: Journal) -> None:
    generator = await make_counter(journal, 5)
    assert await take(generator, 2) == [1, 2]
    assert await anext(generator) == 3
    assert await same(generator) is generator
    await close(generator)
    assert journal.lines() == ["counting ends"]


async def test_a_callback_that_a_routine_returns() -> None:
    @wool.routine
    async def make_adder(n: int) -> Any:
        async def add(m: int) -> int:
            nonlocal n
            n += m
            return n

        return wool.reference(add)

    add = await make_adder(1)
    assert [await add(2), await add(3)] == [3, 6]
    assert inspect.iscoroutinefunction(add)


# What has no place


async def test_a_coroutine_of_mine_says_what_to_do(place: Place) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")

    async def plain() -> int:
        return 1

    coroutine = plain()
    with pytest.raises(wool.SerializationError, match="wool.routine"):
        await same(coroutine)
    assert await coroutine == 1


async def test_what_could_be_marked_says_what_to_do(place: Place) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")

    class Download:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    class AsyncDownload(Download):
        async def read(self) -> bytes:
            return b"data"

    class Slotted:
        __slots__ = ("lock",)

        def __init__(self) -> None:
            self.lock = threading.Lock()

        async def read(self) -> bytes:
            return b"data"

    download = AsyncDownload()
    with pytest.raises(wool.SerializationError, match=r"AsyncDownload\) .* wool.reference\(\)"):
        await same(download)
    for other in Download(), Slotted():  # there are no weak references to the second one
        with pytest.raises(wool.SerializationError, match="such as the data to make it from$"):
            await same(other)
    assert await same(wool.reference(download)) is download
