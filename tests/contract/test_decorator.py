"""The decorator: what it keeps of a function, and what it refuses."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
import typing
from typing import Any

import pytest

import wool
from contract.routines import (
    Account,
    add,
    count,
    echo,
)
from support.parity import NEAR, Journal

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


# What the decorator keeps


async def test_inspection() -> None:
    assert inspect.iscoroutinefunction(add)
    assert not inspect.isasyncgenfunction(add)
    assert inspect.isasyncgenfunction(count)
    assert not inspect.iscoroutinefunction(count)
    for method in (Account.deposit, Account().deposit, Account.named_inside, Account.named_outside,
                   Account.sum_inside, Account.sum_outside, Account().sum_outside):  # fmt: skip
        assert inspect.iscoroutinefunction(method)
    for method in (Account.statement, Account().statement, Account.stream_inside,
                   Account.stream_outside):  # fmt: skip
        assert inspect.isasyncgenfunction(method)
    assert inspect.ismethod(Account().deposit)
    assert inspect.isfunction(Account.sum_outside)


async def test_metadata() -> None:
    def decorator_free() -> Any:
        async def documented(x: int, /, y: str = "y", *rest: Any, z: float, **more: Any) -> bytes:
            """What it does."""
            return b""

        return documented

    plain = decorator_free()
    plain.custom = "attribute"
    routine = wool.routine(plain)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(routine, name) == getattr(plain, name)
    assert routine.custom == "attribute"
    assert routine.__wrapped__ is plain
    assert inspect.unwrap(routine) is plain
    assert inspect.signature(routine) == inspect.signature(plain)
    assert typing.get_type_hints(add) == {"x": int, "y": int, "return": int}
    assert "return x + y" in inspect.getsource(add)
    assert str(inspect.signature(Account().deposit)) == "(amount: 'int') -> 'int'"
    assert str(inspect.signature(Account.named_outside)) == "(suffix: 'str') -> 'str'"
    assert Account.deposit.__doc__ == "Put something in."


async def test_the_original_is_untouched(journal: Journal) -> None:
    async def plain(x: int) -> int:
        return x + 1

    routine = wool.routine(plain)
    assert routine is not plain
    assert not hasattr(plain, "__wrapped__")
    assert await plain(1) == 2
    assert await routine.__wrapped__(1) == 2
    assert await routine(1) == 2


async def test_a_routine_pickles_by_name() -> None:
    assert pickle.loads(pickle.dumps(add)) is add
    assert pickle.loads(pickle.dumps(Account.sum_outside)) is Account.sum_outside
    assert await echo(add) is add
    assert (await echo([count]))[0] is count


# What is refused


def sync_function(x: int) -> int:
    return x


def sync_generator() -> Any:
    yield 1


class SomeClass:
    pass


@pytest.mark.parametrize(
    "what",
    [sync_function, lambda: None, staticmethod(sync_function), classmethod(sync_function),
     functools.partial(sync_function, 1), len],
    ids=["function", "lambda", "staticmethod", "classmethod", "partial", "builtin"],
)  # fmt: skip
async def test_a_sync_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="async def") as raised:
        wool.routine(what)
    assert "asyncio.to_thread" in str(raised.value)


@pytest.mark.parametrize("what", [sync_generator, SomeClass, 3, "add"])
async def test_what_is_no_async_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="async def"):
        wool.routine(what)


async def _coroutine() -> None:
    pass


async def _generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    "what",
    [contextlib.asynccontextmanager(_generator), functools.cache(_coroutine), Account().deposit],
    ids=["context manager", "cached", "bound method"],
)
async def test_what_is_made_of_an_async_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="above its `async def`, below other decorators"):
        wool.routine(what)


@pytest.mark.parametrize(
    "options", [{"prefetch": 1.5}, {"prefetch": "2"}, {"tags": "large"}, {"tags": [3]}], ids=repr
)
async def test_options_of_no_use_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        wool.routine(**options)


async def test_parameters_of_any_name() -> None:
    @wool.routine
    async def shout(PARAMETERS: int, ARGUMENTS: int = 2, *POSITIONAL: int, **KEYWORDS: int) -> Any:  # noqa: N803
        return PARAMETERS, ARGUMENTS, POSITIONAL, KEYWORDS

    @wool.routine
    async def routine(routine: int, self: int = 1, *, cls: int = 2) -> Any:
        return routine, self, cls

    assert await shout(1) == (1, 2, (), {})
    assert await shout(1, 3, 4, KEYWORDS=5) == (1, 3, (4,), {"KEYWORDS": 5})
    assert await routine(0) == (0, 1, 2)


async def test_a_coroutine_is_refused() -> None:
    call = add(1)
    with pytest.raises(TypeError):
        wool.routine(call)  # type: ignore[call-overload]
    call.close()
