"""`contextlib.asynccontextmanager` over a generator routine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

import wool
from contract.types import Plain
from support.parity import Journal, started
from support.waiting import ended, forever, turns

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
