"""Waiting for what ought to happen, and for how things end."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

#: How long to wait for something that ought to happen at once, on a machine that may be busy.
PATIENCE = 30.0


async def until(check: Callable[[], Any], *, within: float = PATIENCE, what: object = None) -> Any:
    """Waits until `check()`, or what it awaits, is true and returns it."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s in vain for {what or check}; last: {value!r}")
        await asyncio.sleep(0.002)


def until_sync(check: Callable[[], Any], *, within: float = PATIENCE, what: object = None) -> Any:
    """As `until`, where no loop runs."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s in vain for {what or check}; last: {value!r}")
        time.sleep(0.005)


async def forever() -> None:
    """Suspend until cancelled."""
    await asyncio.sleep(3600)


async def turns(n: int = 1) -> None:
    """Let the loop turn `n` times."""
    for _ in range(n):
        await asyncio.sleep(0)


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait until `task` is done, whatever came of it."""
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    assert done, f"still running: {task}"


async def caught(awaitable: Awaitable[Any]) -> BaseException:
    """The exception that `awaitable` raises, of whatever kind."""
    try:
        value = await awaitable
    except BaseException as error:
        return error
    raise AssertionError(f"no exception, but {value!r}")


async def pid_in(path: Path) -> int:
    """Waits for a routine to have written its process id to `path`."""
    return int(
        await until(
            lambda: path.exists() and path.read_text(), within=20, what=f"a process id in {path}"
        )
    )
