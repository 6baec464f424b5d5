"""Generators where no pool is open: as if they were not decorated."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

import wool

EITHER = pytest.mark.parametrize("decorate", [lambda f: f, wool.routine])


@EITHER
@pytest.mark.asyncio
async def test_a_context_that_was_cleared_stays_so(decorate: Callable[..., Any]) -> None:
    @decorate
    async def replacing() -> AsyncIterator[None]:
        try:
            yield
        except IndexError:
            error = KeyError()
            try:
                raise error  # noqa: B904
            finally:
                error.__context__ = None

    with pytest.raises(KeyError) as raised:
        async with contextlib.asynccontextmanager(replacing)():
            raise IndexError
    assert raised.value.__context__ is None


@types.coroutine
def suspend() -> Generator[None]:
    yield


def closed(function: Callable[[], Any]) -> BaseException | None:
    """Returns what closing a step while it is suspended raises."""
    step = function().asend(None)
    step.send(None)
    try:
        step.close()
    except BaseException as error:
        return error
    return None


@pytest.mark.skipif(sys.version_info < (3, 13), reason="closing a step did nothing")
def test_a_step_that_is_closed() -> None:
    async def stubborn() -> AsyncIterator[None]:
        try:
            await suspend()
        except GeneratorExit:
            await suspend()
        yield

    async def failing() -> AsyncIterator[None]:
        try:
            await suspend()
        finally:
            raise LookupError("failed")
        yield

    async def quiet() -> AsyncIterator[None]:
        await suspend()
        yield

    for function in stubborn, failing, quiet:
        assert repr(closed(wool.routine(function))) == repr(closed(function))
