"""Plain functions as workers run them; all that an executor needs there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from types import FunctionType
from typing import Any

from wool._client.routine import routine

Outcome = tuple[Any, BaseException | None]


async def run_plainly(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Runs a plain function on this thread, in no task: it may run an event loop itself."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Outcome] = loop.create_future()
    loop.call_soon(_run, loop, ended, partial(function, *args, **kwargs))
    value, error = await ended
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback has this frame
    return value


apply = routine(run_plainly)
"""Runs any callable on a worker: it travels with each call, as an argument."""


def applying(function: FunctionType) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Returns a routine that runs a function on a worker.

    It is code, as part of a routine: it is sent once, and shares the globals of its module with
    others of that, such as one that has initialized the worker.
    """

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await run_plainly(function, *args, **kwargs)

    call.__qualname__ = function.__qualname__  # for messages
    return routine(call)


def _run(
    loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Outcome], function: Callable[[], Any]
) -> None:
    if ended.done():  # it has been cancelled
        return
    outcome: Outcome
    asyncio._set_running_loop(None)  # as where no loop runs, which `asyncio.run` asks for
    try:
        outcome = function(), None
    except BaseException as error:
        outcome = None, error
    finally:
        asyncio._set_running_loop(loop)
    ended.set_result(outcome)


@asynccontextmanager
async def initialized(function: Callable[..., object], args: Iterable[Any]) -> AsyncGenerator[None]:
    """The lifespan of workers that call a function before they are called."""
    function(*args)
    yield
