"""`contextlib.asynccontextmanager` over a generator routine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import wool
from contract.routines import (
    serving,
)
from contract.types import Plain
from support.parity import Journal, started
from support.waiting import caught, ended, forever, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


@wool.routine
async def managed(journal: Journal, mode: str = "pass") -> AsyncIterator[str]:
    journal.write("enter")
    try:
        yield "resource"
    except Exception as error:
        journal.write(f"except {type(error).__name__}")
        if mode == "swallow":
            return
        if mode == "replace":
            raise LookupError("replaced") from error
        raise
    else:
        journal.write("else")
    finally:
        await turns(2)
        journal.write("exit")


async def test_asynccontextmanager(journal: Journal) -> None:
    async with contextlib.asynccontextmanager(managed)(journal) as value:
        assert value == "resource"
        assert journal.lines() == ["enter"]
    assert journal.lines() == ["enter", "else", "exit"]


async def test_asynccontextmanager_lets_an_exception_pass(journal: Journal) -> None:
    error = Plain("body")
    with pytest.raises(Plain) as raised:
        async with contextlib.asynccontextmanager(managed)(journal):
            raise error
    assert raised.value is error
    assert raised.value.__context__ is raised.value.__cause__ is None
    assert journal.lines() == ["enter", "except Plain", "exit"]


async def test_asynccontextmanager_swallows(journal: Journal) -> None:
    async with contextlib.asynccontextmanager(managed)(journal, "swallow"):
        raise Plain("body")
    assert journal.lines() == ["enter", "except Plain", "exit"]


async def test_asynccontextmanager_replaces(journal: Journal) -> None:
    with pytest.raises(LookupError) as raised:
        async with contextlib.asynccontextmanager(managed)(journal, "replace"):
            raise Plain("body")
    assert isinstance(raised.value.__cause__, Plain)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StopIteration("s"),
        lambda: StopAsyncIteration("s"),
        lambda: RuntimeError("r"),
        lambda: asyncio.CancelledError("c"),
        lambda: KeyboardInterrupt("k"),
        lambda: SystemExit(3),
        lambda: GeneratorExit("g"),
    ],
    ids=lambda make: type(make()).__name__,
)
async def test_asynccontextmanager_with_odd_exceptions(make: Any, journal: Journal) -> None:
    @wool.routine
    async def transparent() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await turns(1)
            journal.write("exit")

    error = make()

    async def body() -> None:
        async with contextlib.asynccontextmanager(transparent)():
            raise error

    raised = await caught(body())
    if isinstance(error, StopIteration):  # `body` is a coroutine, which StopIteration cannot leave
        assert type(raised) is RuntimeError and raised.__cause__ is error
    else:
        assert raised is error
    assert journal.lines() == ["exit"]
    await serving()


async def test_asynccontextmanager_is_left_when_cancelled(journal: Journal) -> None:
    async def body() -> None:
        async with contextlib.asynccontextmanager(managed)(journal):
            journal.write("started")
            await forever()

    task = await started(body(), journal)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    assert journal.lines() == ["enter", "started", "exit"]


async def test_asynccontextmanager_decorates_and_stacks(journal: Journal) -> None:
    manager = contextlib.asynccontextmanager(managed)

    @manager(journal)
    async def decorated() -> str:
        return "value"

    assert await decorated() == "value"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            assert await stack.enter_async_context(manager(journal)) == "resource"
    assert journal.count("enter") == journal.count("exit") == 4


async def test_asynccontextmanager_used_inside_a_routine(journal: Journal) -> None:
    @wool.routine
    async def use() -> str:
        try:
            async with contextlib.asynccontextmanager(managed)(journal) as value:
                journal.write("body")
                raise Plain(value)
        except Plain as error:
            return f"caught {error}"

    assert await use() == "caught resource"
    assert journal.lines() == ["enter", "body", "except Plain", "exit"]
