"""Calling: what a call returns, when something happens, which arguments fit."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import types
import warnings
from typing import Any

import pytest

import wool
from contract import routines
from contract.routines import (
    add,
    collect,
    count,
    echo,
    parameters,
    serving,
    tracing,
)
from support.parity import Journal, Place
from support.waiting import turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# What a call returns, and when something happens


def warned(seen: list[warnings.WarningMessage]) -> list[tuple[type[Warning], str]]:
    """Returns the warnings, but for resources: what is collected may be garbage of other tests."""
    return [(w.category, str(w.message)) for w in seen if w.category is not ResourceWarning]


async def test_a_call_returns_a_coroutine() -> None:
    call = add(1)
    assert type(call) is types.CoroutineType
    assert isinstance(call, collections.abc.Coroutine)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CREATED
    assert (call.__name__, call.__qualname__) == ("add", "add")
    assert await call == 3
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED


async def test_a_generator_call_returns_an_async_generator() -> None:
    call = count(2)
    assert type(call) is types.AsyncGeneratorType
    assert isinstance(call, collections.abc.AsyncGenerator)
    assert aiter(call) is call
    assert (call.__name__, call.__qualname__) == ("count", "count")
    assert [i async for i in call] == [0, 1]


async def test_nothing_happens_before_the_await(journal: Journal) -> None:
    call = routines.write(journal, "ran")
    await turns(5)
    await serving()
    assert journal.lines() == []
    await call
    assert journal.lines() == ["ran"]


async def test_nothing_happens_before_the_first_step(journal: Journal) -> None:
    stream = tracing(journal)
    await turns(5)
    await serving()
    assert journal.lines() == []
    assert await anext(stream) == 0
    assert journal.lines() == ["step 0"]
    await stream.aclose()


async def test_arguments_are_those_of_the_await(place: Place) -> None:
    values = [1]
    call = echo(values)
    values.append(2)
    assert await call == [1, 2]


async def test_a_closed_call_never_runs(journal: Journal) -> None:
    call = routines.write(journal, "ran")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call.close()
        del call
        gc.collect()
    await serving()
    assert journal.lines() == []


async def test_a_stream_closed_before_its_first_step_never_runs(journal: Journal) -> None:
    stream = tracing(journal)
    await stream.aclose()
    assert [i async for i in stream] == []
    assert journal.lines() == []


async def test_a_call_never_awaited_warns_as_any_coroutine_does(journal: Journal) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        routines.write(journal, "ran")
        gc.collect()
    assert warned(seen) == [(RuntimeWarning, "coroutine 'write' was never awaited")]
    await serving()
    assert journal.lines() == []


async def test_a_generator_never_iterated_does_not_warn(journal: Journal) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tracing(journal)
        gc.collect()
    assert warned(seen) == []
    assert journal.lines() == []


async def test_a_call_is_awaited_once() -> None:
    call = add(1)
    assert await call == 3
    for _ in range(2):
        with pytest.raises(RuntimeError) as raised:
            await call
        assert raised.value.args == ("cannot reuse already awaited coroutine",)


async def test_a_call_being_awaited_cannot_be_awaited_again(journal: Journal) -> None:
    call = routines.finish_when(journal, "go on", "done")
    first = asyncio.create_task(call)
    await journal.wait("started")
    with pytest.raises(RuntimeError, match="^coroutine is being awaited already$"):
        await call
    journal.write("go on")
    assert await first == "done"


# Arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {"d": 4}, (1, "b", "c", (), 4, "e", {})),
        ((1, 2), {"d": 4, "e": 5}, (1, 2, "c", (), 4, 5, {})),
        ((1, 2, 3), {"d": 4}, (1, 2, 3, (), 4, "e", {})),
        ((1, 2, 3, 4, 5), {"d": None}, (1, 2, 3, (4, 5), None, "e", {})),
        ((1,), {"c": 3, "d": 4, "z": 26}, (1, "b", 3, (), 4, "e", {"z": 26})),
        ((1,), {"d": 4, "a": "rest"}, (1, "b", "c", (), 4, "e", {"a": "rest"})),
    ],
)
async def test_arguments_bind_as_they_do_locally(
    args: Any, kwargs: dict[str, Any], expected: Any
) -> None:
    assert await parameters(*args, **kwargs) == expected


async def test_any_keyword_may_be_an_argument() -> None:
    names = "self cls args kwargs function fn func call routine pool worker timeout tags name id"
    given = {name: i for i, name in enumerate(names.split())}
    assert await collect(1, **given) == ((1,), given)
    assert await collect(*range(300)) == (tuple(range(300)), {})


_bad_calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, 2, 3), {}),
    ((1,), {"z": 3}),
    ((1,), {"x": 3}),
    ((), {"y": 3}),
]


@pytest.mark.parametrize(("args", "kwargs"), _bad_calls)
async def test_wrong_arguments_raise_at_the_call(args: Any, kwargs: dict[str, Any]) -> None:
    async def add(x: int, y: int = 2) -> int:
        return x + y

    remote_add = wool.routine(add)
    with pytest.raises(TypeError) as expected:
        add(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        remote_add(*args, **kwargs)
    assert str(raised.value) == str(expected.value)


async def test_a_mutable_default_is_used() -> None:
    @wool.routine
    async def remember(value: int, seen: list[int] = []) -> list[int]:  # noqa: B006
        seen.append(value)
        return seen

    assert await remember(1) == [1]
    assert await remember(2, []) == [2]
    assert await remember(3, [1, 2]) == [1, 2, 3]


async def test_arguments_and_results_are_copies_elsewhere(place: Place) -> None:
    values = [1]

    @wool.routine
    async def extend(given: list[int]) -> list[int]:
        given.append(2)
        return given

    result = await extend(values)
    assert result == [1, 2]
    assert values == ([1] if place.remote else [1, 2])
    assert (result is values) is not place.remote
