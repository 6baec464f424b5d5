"""Exceptions not to be confused with the machinery: StopIteration, SystemExit, CancelledError …"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import wool
from contract.routines import fail, serving, stream_fail
from contract.types import Fatal
from support.parity import NEAR, describe
from support.waiting import caught

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


class Stop(StopIteration):
    pass


class AsyncStop(StopAsyncIteration):
    pass


class Cancelled(asyncio.CancelledError):
    pass


class Interrupt(KeyboardInterrupt):
    pass


class Exit(SystemExit):
    pass


class Leave(GeneratorExit):
    pass


@pytest.mark.parametrize(
    ("kind", "args"), [(StopIteration, (3, "x")), (StopIteration, ()), (Stop, ("s",))]
)
async def test_stop_iteration_out_of_a_coroutine(kind: type[StopIteration], args: Any) -> None:
    error = kind(*args)
    raised = await caught(fail(kind(*args)))
    assert type(raised) is RuntimeError
    assert raised.args == ("coroutine raised StopIteration",)
    assert type(raised.__cause__) is type(error)
    assert raised.__cause__ is raised.__context__
    assert (raised.__cause__.args, raised.__cause__.value) == (error.args, error.value)
    await serving()


@pytest.mark.parametrize(("kind", "args"), [(StopAsyncIteration, ("a", 1)), (AsyncStop, ())])
async def test_stop_async_iteration_out_of_a_coroutine(
    kind: type[StopAsyncIteration], args: Any
) -> None:
    error = kind(*args)
    raised = await caught(fail(kind(*args)))
    assert type(raised) is type(error)
    assert raised.args == error.args
    assert raised.__cause__ is raised.__context__ is None
    await serving()


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (StopIteration, "async generator raised StopIteration"),
        (Stop, "async generator raised StopIteration"),
        (StopAsyncIteration, "async generator raised StopAsyncIteration"),
        (AsyncStop, "async generator raised StopAsyncIteration"),
    ],
)
async def test_stops_out_of_an_async_generator(
    kind: type[BaseException], message: str, steps: int
) -> None:
    error = kind("stop")
    stream = stream_fail(kind("stop"), steps)
    assert [await anext(stream) for _ in range(steps)] == list(range(steps))
    raised = await caught(anext(stream))
    assert type(raised) is RuntimeError
    assert raised.args == (message,)
    assert type(raised.__cause__) is type(error)
    assert raised.__cause__.args == error.args
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


ODD: list[Callable[[], BaseException]] = [
    lambda: KeyboardInterrupt("k"),
    lambda: Interrupt(),
    lambda: SystemExit(3),
    lambda: SystemExit("goodbye"),
    lambda: SystemExit(),
    lambda: Exit(7),
    lambda: GeneratorExit("g"),
    lambda: Leave("l"),
    lambda: asyncio.CancelledError("own"),
    lambda: asyncio.CancelledError(),
    lambda: Cancelled("c", 1),
    lambda: Fatal("f", code=3),
    lambda: BaseException("b"),
]


@pytest.mark.parametrize("make", ODD, ids=lambda make: repr(make()))
async def test_out_of_a_coroutine(make: Callable[[], BaseException]) -> None:
    error = make()
    raised = await caught(fail(make()))
    assert type(raised) is type(error)
    assert describe(raised) == describe(error)
    if isinstance(error, SystemExit):
        assert isinstance(raised, SystemExit) and raised.code == error.code
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await serving()


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("make", ODD, ids=lambda make: repr(make()))
async def test_out_of_an_async_generator(make: Callable[[], BaseException], steps: int) -> None:
    error = make()
    stream = stream_fail(make(), steps)
    assert [await anext(stream) for _ in range(steps)] == list(range(steps))
    raised = await caught(anext(stream))
    assert type(raised) is type(error)
    assert describe(raised) == describe(error)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await serving()


async def test_a_cancelled_error_of_its_own_is_no_cancellation() -> None:
    """A routine that raises CancelledError cancels a task that awaits it, and nothing else."""
    task = asyncio.create_task(fail(asyncio.CancelledError("own")))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled() and task.cancelling() == 0
    results = await asyncio.gather(
        fail(asyncio.CancelledError()), fail(ValueError()), return_exceptions=True
    )
    assert [type(r) for r in results] == [asyncio.CancelledError, ValueError]
    await serving()


async def test_a_routine_that_awaits_a_cancelled_task() -> None:
    @wool.routine
    async def await_cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel("the inner one")
        await task

    raised = await caught(await_cancelled())
    assert type(raised) is asyncio.CancelledError
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await serving()


async def test_a_routine_that_cancels_itself() -> None:
    @wool.routine
    async def cancel_self() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by myself")
        await asyncio.sleep(60)

    task = asyncio.create_task(cancel_self())
    await asyncio.wait([task])
    assert task.cancelled()
    await serving()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@pytest.mark.parametrize("stream", [False, True], ids=["call", "stream"])
async def test_one_that_nothing_may_be_set_on(stream: bool) -> None:
    """As an exception that is a frozen dataclass: the interpreter does not ask its class."""

    @wool.routine
    async def call() -> None:
        try:
            raise Frozen(1)
        except Frozen:
            raise Frozen(2)  # noqa: B904

    @wool.routine
    async def steps() -> AsyncGenerator[int]:
        yield 1
        await call()

    async def outcome() -> BaseException:
        try:
            raise Frozen(0)
        except Frozen:
            return await caught(anext(iterator) if stream else call())

    iterator = steps()
    if stream:
        await anext(iterator)
    error: Any = await outcome()
    codes: list[int] = []
    while error is not None:
        assert type(error) is Frozen
        codes.append(error.code)
        error = error.__context__
    assert codes == [2, 1, 0]


async def test_a_storm_of_odd_exceptions() -> None:
    async def outcome(error: BaseException) -> type[BaseException]:
        return type(await caught(fail(error)))

    errors = [make() for make in ODD * 5]
    assert await asyncio.gather(*map(outcome, errors)) == [type(error) for error in errors]
    await serving()
