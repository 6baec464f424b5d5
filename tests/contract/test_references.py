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
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest

import wool
from contract.lending import (
    Feed,
    Ledger,
    Tape,
    break_after,
    call,
    call_many,
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
from support.waiting import caught, this_task, until

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


async def test_an_unstarted_generator() -> None:
    assert await drain(numbers(5)) == [0, 1, 2, 3, 4]


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


async def test_what_it_looks_like() -> None:
    @wool.routine
    async def look(generator: Any, iterator: Any) -> Any:
        return (
            isinstance(generator, AsyncGenerator),
            isinstance(iterator, AsyncIterator),
            isinstance(iterator, AsyncGenerator),
            hasattr(iterator, "aclose"),
            aiter(generator) is generator,
            aiter(iterator) is iterator,
        )

    assert await look(numbers(), Tape()) == (True, True, False, False, True, True)


async def test_many_steps() -> None:
    assert await drain(numbers(500)) == list(range(500))


async def test_large_values() -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for i in range(3):
            yield bytes([i]) * 3_000_000

    @wool.routine
    async def measure(source: Any) -> list[tuple[int, int]]:
        return [(block[0], len(block)) async for block in source]

    assert await measure(blocks()) == [(i, 3_000_000) for i in range(3)]


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


async def test_what_map_makes() -> None:
    assert await drain(wool.map(same, [1, 2, 3])) == [1, 2, 3]


# Sending, throwing, closing


async def echoing() -> AsyncGenerator[Any, Any]:
    value: Any = "ready"
    while True:
        try:
            value = yield value
        except LookupError as error:
            value = "caught", error.args


async def test_asend_and_athrow() -> None:
    outcomes = await drive(
        echoing(),
        ("__anext__",),
        ("asend", 5),
        ("asend", [6]),
        ("athrow", LookupError("a", 1)),
        ("athrow", LookupError),
        ("asend", None),
    )
    assert outcomes == ["ready", 5, [6], ("caught", ("a", 1)), ("caught", ()), None]


async def test_errors_of_generators() -> None:
    generator = echoing()
    early, first, thrown, end, value = await drive(
        generator,
        ("asend", 1),
        ("asend", None),
        ("athrow", ValueError("out")),
        ("__anext__",),
        ("aclose",),
    )
    assert type(early) is TypeError
    assert "just-started" in str(early)
    assert first == "ready"
    assert (type(thrown), thrown.args) == (ValueError, ("out",))
    assert type(end) is StopAsyncIteration
    assert value is None
    assert [v async for v in generator] == []


async def test_an_exception_thrown_in_comes_back_itself() -> None:
    @wool.routine
    async def check(generator: Any) -> bool:
        await anext(generator)
        error = ValueError("mine")
        try:
            await generator.athrow(error)
        except ValueError as seen:
            return seen is error
        return False

    assert await check(echoing())


async def test_aclose_closes_it_here(journal: Journal) -> None:
    generator = counting(journal)
    assert await anext(generator) == 0
    await close(generator)
    assert journal.lines() == ["counting ends"]
    assert [value async for value in generator] == []
    await close(generator)


async def test_ignoring_generator_exit() -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    first, error = await drive(stubborn(), ("__anext__",), ("aclose",))
    assert first == 1
    assert type(error) is RuntimeError
    assert str(error) == "async generator ignored GeneratorExit"


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


async def test_running_already(journal: Journal) -> None:
    @wool.routine
    async def twice(generator: Any, journal: Journal) -> Any:
        first = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        second = await caught(anext(generator))
        journal.write("refused")
        return await first, repr(second)

    async def slow() -> AsyncIterator[int]:
        await journal.wait("refused")
        yield 1

    assert await twice(slow(), journal) == (
        1,
        "RuntimeError('anext(): asynchronous generator is already running')",
    )


async def test_a_pipeline_stage_over_a_generator_here(journal: Journal) -> None:
    async with aclosing(doubled(counting(journal, 4))) as stream:
        assert [value async for value in stream] == [0, 2, 4, 6]
    assert journal.lines() == ["counting ends"]


async def test_closing_the_stage_closes_the_source(journal: Journal) -> None:
    stream = doubled(counting(journal, 4))
    assert await anext(stream) == 0
    await stream.aclose()
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


async def test_it_is_caught_there_by_its_class() -> None:
    @wool.routine
    async def careful(source: Any) -> Any:
        try:
            async for _ in source:
                pass
        except Broke as error:
            return error.missing

    assert await careful(failing()) == 3


async def test_odd_exceptions_of_an_iterator() -> None:
    class Odd:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        async def __anext__(self) -> Any:
            raise self.error

    for error in (KeyboardInterrupt("k"), SystemExit(3), GeneratorExit("g")):
        [seen] = await drive(Odd(error), ("__anext__",))
        assert (type(seen), seen.args) == (type(error), error.args)


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


async def test_a_timeout_around_a_step(journal: Journal) -> None:
    @wool.routine
    async def impatient(source: Any, journal: Journal) -> Any:
        assert await anext(source) == 1
        try:
            async with asyncio.timeout(3600) as timeout:
                step = asyncio.ensure_future(anext(source))
                await journal.wait("waits")
                timeout.reschedule(asyncio.get_running_loop().time())
                await step
        except TimeoutError:
            return "late", [value async for value in source]

    assert await impatient(waiting(journal), journal) == ("late", [])
    assert "source ends" in journal.lines()


async def test_an_owner_that_swallows_the_cancel(journal: Journal) -> None:
    async def deaf() -> AsyncIterator[int]:
        try:
            journal.write("waits")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        yield 1
        yield 2

    @wool.routine
    async def cancel_one(source: Any, journal: Journal) -> Any:
        step = asyncio.ensure_future(anext(source))
        await journal.wait("waits")
        step.cancel()
        return await step, await anext(source)

    assert await cancel_one(deaf(), journal) == (1, 2)


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


@pytest.mark.parametrize("generator", [True, False])
async def test_a_cancel_that_crosses_the_end(generator: bool, journal: Journal) -> None:
    async def source() -> AsyncIterator[int]:
        await asyncio.sleep(0)
        journal.write("steps")
        return
        yield 0

    class Empty:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> int:
            await asyncio.sleep(0)
            journal.write("steps")
            raise StopAsyncIteration

    assert await cancel_late(source() if generator else Empty(), journal) == (LATE, [])


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
    """Who has been cancelled does not know that it holds the lock, so it does not."""

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


async def test_a_cancel_that_crosses_the_entering_of_an_object(journal: Journal) -> None:
    class Room:
        async def __aenter__(self) -> None:
            await asyncio.sleep(0)
            journal.write("steps")

        async def __aexit__(self, kind: Any, error: Any, trace: Any) -> bool:
            await asyncio.sleep(0.01)
            journal.write(f"left {kind.__name__} {error.args}")
            return True

    @wool.routine
    async def enter(room: Any, journal: Journal) -> None:
        async def use() -> None:
            async with room:
                journal.write("inside")

        task = asyncio.ensure_future(use())
        await asyncio.sleep(0)
        if wool.current_call() is not None:
            journal.block("steps")
        task.cancel("late")
        await task

    error = await caught(enter(wool.reference(Room()), journal))
    assert (type(error), error.args) == LATE
    assert journal.lines() in ([], ["steps", "left CancelledError ('late',)"])


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


@pytest.mark.parametrize("error", ["unsent", "unknown"])
async def test_leaving_because_of_what_cannot_travel(error: str) -> None:
    """What was entered is left, whatever the exception is, and that is what is raised."""
    for lock in (asyncio.Lock(), asyncio.Semaphore(), asyncio.Condition()):
        raised = await caught(fail_inside(lock, error))
        if error == "unsent":
            assert (type(raised), raised.args) == (Unsent, ("in there",))
        else:
            assert type(raised) in (Unknown, wool.RemoteError)
        assert raised.__context__ is None or isinstance(raised.__context__, LookupError)
        assert not lock.locked()


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
    """What is awaited begins at once, so what was entered is left, however early the cancel is."""

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


async def test_the_owner_raises_cancelled_error(journal: Journal) -> None:
    async def suicidal() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError("mine")

    error = await caught(drain(suicidal()))
    assert type(error) is asyncio.CancelledError
    assert this_task().cancelling() == 0


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


async def test_a_function() -> None:
    seen: list[Any] = []

    async def report(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs, os.getpid()))
        return len(seen)

    assert await call(wool.reference(report), 1, b=2) == 1
    assert await call(report) == 2  # once marked, it stays so
    assert seen == [((1,), {"b": 2}, os.getpid()), ((), {}, os.getpid())]


async def test_a_bound_method() -> None:
    ledger = Ledger()
    assert await call(wool.reference(ledger.note), "a", loudly=True) == 1
    assert ledger.entries == ["a!"]


async def test_a_partial() -> None:
    ledger = Ledger()
    assert await call(wool.reference(partial(ledger.note, "p")), loudly=True) == 1
    assert ledger.entries == ["p!"]


async def test_a_lambda_around_a_class() -> None:
    class Adder:
        total = 0

        async def __call__(self, n: int) -> int:
            self.total += n
            return self.total

    adder = Adder()
    assert await call(wool.reference(adder), 2) == 2
    assert await call(adder, 3) == 5
    assert adder.total == 5


async def test_callbacks_at_once() -> None:
    running = 0
    most = 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        while most < 5:
            await asyncio.sleep(0)
        running -= 1
        return n * n

    assert await call_many(wool.reference(work), list(range(5))) == [0, 1, 4, 9, 16]
    assert most == 5


async def test_a_callback_that_raises() -> None:
    async def refuse() -> None:
        raise Broke(missing=1)

    error = await caught(call(wool.reference(refuse)))
    assert type(error) is Broke


async def test_what_a_callback_looks_like() -> None:
    async def report() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    @wool.routine
    async def look(function: Any, generator: Any) -> Any:
        return (
            function.__name__,
            inspect.iscoroutinefunction(function),
            inspect.isasyncgenfunction(generator),
        )

    found = await look(wool.reference(report), wool.reference(stream))
    assert found == ("report", True, True)


async def test_a_generator_function() -> None:
    ended: list[int] = []

    async def stream(n: int) -> AsyncGenerator[Any, Any]:
        try:
            for i in range(n):
                sent = yield i
                if sent:
                    yield sent
        finally:
            ended.append(n)

    @wool.routine
    async def use(stream: Any) -> Any:
        values = [value async for value in stream(3)]
        generator = stream(9)
        async with aclosing(generator):
            values += [await anext(generator), await generator.asend("sent")]
        return values

    assert await use(wool.reference(stream)) == [0, 1, 2, 0, "sent"]
    assert ended == [3, 9]


async def test_a_routine_called_by_a_callback() -> None:
    async def nested(n: int) -> Any:
        return await same(n) + await same(1)

    assert await call(wool.reference(nested), 4) == 5


async def test_a_callback_calls_back() -> None:
    async def outer(inner: Any) -> Any:
        return await call(inner, 2)

    @wool.routine
    async def start(outer: Any) -> Any:
        async def inner(n: int) -> int:
            return n + 1

        return await outer(wool.reference(inner))

    assert await start(wool.reference(outer)) == 3


# Objects


async def test_an_object_with_async_methods() -> None:
    ledger = Ledger()

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


class Channel:
    """Travels by value; the queue in it does not."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def __aiter__(self) -> AsyncIterator[int]:
        while (item := await self.queue.get()) is not None:
            yield item


async def test_an_iterable_with_a_queue_in_it() -> None:
    @wool.routine
    async def total(channel: Channel) -> int:
        return sum([item async for item in channel])

    channel = Channel()
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(total(channel))
        for item in (1, 2, 3, None):
            await channel.queue.put(item)
    assert adding.result() == 6


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


async def test_what_is_not_async_stays_out_of_reach(place: Place) -> None:
    if not place.remote:
        pytest.skip("nothing is out of reach")

    @wool.routine
    async def look(ledger: Any) -> list[bool]:
        return [hasattr(ledger, name) for name in ("note", "sync", "entries", "aclose")]

    assert await look(wool.reference(Ledger())) == [True, False, False, False]


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


async def test_the_mark_returns_what_it_was_given() -> None:
    ledger = Ledger()
    assert wool.reference(ledger) is ledger


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


async def test_large_things_beside_what_comes_back() -> None:
    tape = Tape(1)
    block, found = await same((b"x" * 5_000_000, tape))
    assert len(block) == 5_000_000
    assert found is tape


async def test_an_argument_of_a_callback_that_lives_here() -> None:
    async def check(value: Any) -> bool:
        return value is tape

    tape = Tape()

    @wool.routine
    async def give_back(check: Any, tape: Any) -> bool:
        return await check(tape)

    assert await give_back(wool.reference(check), tape)


async def test_passed_on_to_another_routine(journal: Journal) -> None:
    generator = counting(journal, 4)
    assert await forward(generator) == [0, 1, 2, 3]
    assert journal.lines() == ["counting ends"]


async def test_passed_on_by_several() -> None:
    @wool.routine
    async def down(depth: int, source: Any, check: Any) -> Any:
        if depth:
            return await down(depth - 1, source, check)
        return await anext(source), await check(source)

    async def check(source: Any) -> bool:
        return source is generator

    generator = numbers()
    assert await down(5, generator, wool.reference(check)) == (0, True)
    assert await anext(generator) == 1


async def test_passed_on_and_back_by_several() -> None:
    @wool.routine
    async def around(depth: int, source: Any) -> Any:
        return await around(depth - 1, source) if depth else source

    generator = numbers()
    assert await around(4, generator) is generator


async def test_a_cancel_passes_all_that_pass_it_on(journal: Journal) -> None:
    task = asyncio.create_task(forward(waiting(journal)))
    await journal.wait("waits")
    task.cancel("all")
    assert type(await caught(task)) is asyncio.CancelledError
    assert journal.lines() == ["waits", "CancelledError ('all',)", "source ends"]


# As results


async def test_a_generator_that_a_routine_returns(journal: Journal, place: Place) -> None:
    generator = await make_counter(journal, 5)
    assert isinstance(generator, AsyncGenerator)
    assert [value async for value in generator] == [1, 2, 3, 4]
    await journal.wait("counting ends")


async def test_closing_what_a_routine_returned(journal: Journal) -> None:
    generator = await make_counter(journal)
    assert await anext(generator) == 1
    await generator.aclose()
    assert journal.lines() == ["counting ends"]
    assert [value async for value in generator] == []


async def test_dropping_what_a_routine_returned(journal: Journal) -> None:
    generator = await make_counter(journal)
    assert await anext(generator) == 1
    del generator
    gc.collect()
    await journal.wait("counting ends")


async def test_dropping_what_was_never_used(journal: Journal) -> None:
    await make_counter(journal)
    gc.collect()
    await journal.wait("counting ends")


async def test_cancelling_a_step_of_what_a_routine_returned(journal: Journal) -> None:
    @wool.routine
    async def make() -> Any:
        generator = waiting(journal)
        await anext(generator)
        return generator

    generator = await make()
    task = asyncio.ensure_future(anext(generator))
    await journal.wait("waits")
    task.cancel("no more")
    error = await caught(task)
    assert (type(error), error.args) == (asyncio.CancelledError, ("no more",))
    assert journal.lines() == ["waits", "CancelledError ('no more',)", "source ends"]


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


async def test_sent_and_thrown_into_a_stream() -> None:
    @wool.routine
    async def concatenate() -> AsyncGenerator[Any, Any]:
        source = yield None
        while True:
            values = [value async for value in source]
            try:
                source = yield values
            except LookupError as error:
                source = error.args[0]

    async with aclosing(concatenate()) as stream:
        await anext(stream)
        assert await stream.asend(numbers(2)) == [0, 1]
        assert await stream.athrow(LookupError(numbers(3))) == [0, 1, 2]


async def test_in_an_exception(journal: Journal) -> None:
    @wool.routine
    async def fail() -> None:
        raise LookupError(wool.reference(Ledger().note), "and more")

    error = await caught(fail())
    assert await error.args[0]("x") == 1


async def test_a_context_manager_made_of_one(journal: Journal) -> None:
    @asynccontextmanager
    async def resource() -> AsyncIterator[str]:
        journal.write("opened")
        try:
            yield "it"
        except LookupError:
            journal.write("failed")
        finally:
            journal.write("closed")

    @wool.routine
    async def use(generator: Any) -> None:
        assert await anext(generator) == "it"
        with pytest.raises(StopAsyncIteration):
            await generator.athrow(LookupError())

    await use(resource().gen)
    assert journal.lines() == ["opened", "failed", "closed"]


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


async def test_code_takes_no_copy_of_what_has_to_stay(place: Place) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def wait() -> int:
        return await queue.get()

    @wool.reference
    async def put(value: int) -> None:
        await queue.put(value)

    @wool.routine
    async def indirectly() -> int:
        return await wait()

    @wool.routine
    async def marked() -> None:
        await put(1)

    for routine, name in (indirectly, "queue"), (marked, "put"):
        with pytest.raises(wool.SerializationError, match=f"'{name}' .* as an argument"):
            await routine()
    queue.put_nowait(1)
    assert await call(wait) == 1


async def test_another_loop_than_the_one_it_came_to(place: Place, journal: Journal) -> None:
    if not place.remote:
        pytest.skip("a generator of this process")
    generator = await make_counter(journal)

    async def step() -> Any:
        return await anext(generator)

    with pytest.raises(RuntimeError, match="different event loop"):
        await asyncio.to_thread(asyncio.run, step())
    assert await anext(generator) == 1
    await generator.aclose()


class Kept:
    """Lends an iterator: closing what it lends does nothing, as in asyncstdlib's `borrow`."""

    def __init__(self) -> None:
        self.n = -1

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        self.n += 1
        return self.n

    async def asend(self, value: Any) -> int:
        return await self.__anext__()

    async def athrow(self, *error: Any) -> int:
        return await self.__anext__()

    async def aclose(self) -> None: ...


@wool.routine
async def close_and_go_on(source: Any) -> tuple[Any, Any]:
    first = await anext(source)
    await source.aclose()
    return first, await anext(source, "end")


async def test_closing_what_is_no_generator_need_not_end_it() -> None:
    assert await close_and_go_on(Kept()) == (0, 1)


async def test_an_iterator_that_can_be_called() -> None:
    class Ticker(Kept):
        def __call__(self) -> None: ...

    ticker = Ticker()
    assert await close_and_go_on(ticker) == (0, 1)
    assert ticker.n == 1  # it has stayed where it is


async def test_closing_a_generator_ends_it() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 0
        yield 1

    assert await close_and_go_on(numbers()) == (0, "end")


@wool.routine
async def call_it(function: Any) -> Any:
    return await function(1)


async def test_a_mock_that_is_marked() -> None:
    """It has every method, those of iterators among them; what is asked of it is to be called."""
    mock = wool.reference(AsyncMock(return_value="called"))
    assert await call_it(mock) == "called"
    mock.assert_awaited_once_with(1)


async def test_a_mock_that_is_not(place: Place) -> None:
    mock = AsyncMock(return_value="called")
    if place.remote:
        with pytest.raises(wool.SerializationError, match="'function' .*wool.reference"):
            await call_it(mock)
    else:
        assert await call_it(mock) == "called"
