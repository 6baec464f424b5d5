"""Variables that do not travel: one cannot, it is excluded, or it is a library's."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

import wool
from contract import variables as v

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["memory", "unix"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@contextlib.asynccontextmanager
async def pool(transport: str, **options: Any) -> AsyncIterator[wool.WorkerPool]:
    async with wool.WorkerPool(size=2, transport=transport, **options) as opened:
        yield opened


@contextlib.contextmanager
def remembered(variable: ContextVar[Any], *values: Any) -> Any:
    """Gathers the warnings about a variable; none about another one is expected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert [w.category for w in caught] == [wool.ContextWarning] * len(caught)
    assert all(variable.name in str(w.message) for w in caught)


@wool.routine
async def through(names: list[str]) -> Any:
    """The values here, then those another routine sees."""
    return v.snapshot(*names), await v.get(*names)


@wool.routine
async def see_two_steps() -> Any:
    yield v.snapshot("plain", "unsuitable")
    yield v.snapshot("plain", "unsuitable")


async def test_what_cannot_be_pickled_stays(transport: str) -> None:
    class Unpicklable:
        tries = 0

        def __reduce__(self) -> Any:
            Unpicklable.tries += 1
            raise TypeError("no thanks")

    value = Unpicklable()
    async with pool(transport):
        v.unsuitable.set(value)
        v.plain.set("travels")
        with remembered(v.unsuitable) as caught:
            assert await v.get("plain", "unsuitable") == {"plain": "travels", "unsuitable": "unset"}
            assert v.unsuitable.get() is value
            assert await v.get("unsuitable") == {"unsuitable": "unset"}
            assert [s["unsuitable"] async for s in see_two_steps()] == ["unset"] * 2
            v.unsuitable.set(Unpicklable())
            assert await v.get("unsuitable") == {"unsuitable": "unset"}
        assert len(caught) == 1
        message = str(caught[0].message)
        assert "contract.variables.unsuitable" in message
        assert "TypeError: no thanks" in message
        assert "`exclude`" in message
        assert caught[0].filename == __file__
    assert Unpicklable.tries == 2  # each of them once


async def test_what_a_routine_cannot_send_back(transport: str) -> None:
    """The caller is warned: nobody reads what a worker writes."""
    script = f"""
import asyncio, threading, warnings, wool
from contextvars import ContextVar
bad = ContextVar("bad", default="default")
good = ContextVar("good")

@wool.routine
async def inner():
    bad.set(threading.Lock())
    good.set(1)

@wool.routine
async def outer():
    await inner()
    return bad.get()

async def main():
    async with wool.WorkerPool(size=1, transport={transport!r}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print(await outer(), bad.get(), good.get())
            print(await outer(), bad.get(), good.get())
        print(*(f"{{w.category.__name__}} {{'__main__.bad' in str(w.message)}}" for w in caught))

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["default default 1"] * 2 + ["ContextWarning True"]


async def test_variables_of_libraries_are_passed_over(transport: str) -> None:
    decimal.getcontext().prec = 7
    async with pool(transport):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await v.get("plain")


async def test_a_warning_may_be_an_error(transport: str) -> None:
    mine: ContextVar[int] = ContextVar("an error")
    async with pool(transport):
        mine.set(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", wool.ContextWarning)
            with pytest.raises(wool.ContextWarning, match="an error"):
                await v.get("plain")
        assert await v.get("plain") == {"plain": "unset"}


async def test_what_may_change_is_pickled_each_time(transport: str) -> None:
    """Told by what is pickled, not by the clock."""
    pickled: list[str] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __reduce__(self) -> Any:
            pickled.append(self.name)
            return str, (self.name,)

    async with pool(transport):
        v.plain.set(("cannot change", 1))
        v.other.set([Counted("may")])
        for _ in range(3):
            seen = await v.get("plain", "other")
            assert seen == {"plain": ("cannot change", 1), "other": ["may"]}
        assert pickled == ["may"] * 3
        pickled.clear()
        async for _ in see_two_steps():
            pass
        assert pickled == ["may"]  # a step sends what has changed


async def test_context_off(transport: str) -> None:
    async with pool(transport, context="off"):
        v.plain.set("here")
        assert await through(["plain", "defaulted"]) == (
            {"plain": "unset", "defaulted": "default"},
            {"plain": "unset", "defaulted": "default"},
        )
        await v.put(plain="there")
        async for item in v.counting(1):
            assert item["plain"] == "unset"
        assert v.plain.get() == "here"
        mine: ContextVar[int] = ContextVar("nobody asks")
        mine.set(1)
        await v.get("plain")


async def test_exclude(transport: str) -> None:
    names = ["contract.variables.excluded", "contract.variables.Holder.attribute", "nameless"]
    async with pool(transport, exclude=names):
        v.excluded.set("here")
        v.Holder.attribute.set("here")
        v.plain.set("travels")
        nameless: ContextVar[int] = ContextVar("nameless")
        nameless.set(1)
        outer, inner = await through(["excluded", "attribute", "plain"])
        assert outer == inner == {"excluded": "default", "attribute": "unset", "plain": "travels"}
        await v.put(excluded="there", attribute="there", plain="changed")
        assert v.snapshot("excluded", "attribute", "plain") == {
            "excluded": "here",
            "attribute": "here",
            "plain": "changed",
        }


async def test_a_value_that_cannot_be_rebuilt(transport: str) -> None:
    """The failure on the worker is told to the caller; the variable is as if it were not set."""

    class Broken:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    async with pool(transport):
        v.unsuitable.set(Broken())
        with remembered(v.unsuitable) as caught:
            assert await v.get("unsuitable") == {"unsuitable": "unset"}
        assert len(caught) == 1
        assert "not a number" in str(caught[0].message)
