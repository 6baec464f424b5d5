"""What the kits share: bounded waits, and failures that say what to do."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import reprlib
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
Check = TypeVar("Check", bound=Callable[..., Any])


def remedy(advice: str) -> Callable[[Check], Check]:
    """Gives a check advice, which is told with its promise, the docstring, when it fails."""

    def decorate(check: Check) -> Check:
        explained = Explained(explanation(check.__doc__ or "", advice))

        @functools.wraps(check)
        def checked(*args: Any, **options: Any) -> Any:
            with explained:
                return check(*args, **options)

        @functools.wraps(check)
        async def checked_async(*args: Any, **options: Any) -> Any:
            with explained:
                return await check(*args, **options)

        chosen: Any = checked_async if inspect.iscoroutinefunction(check) else checked
        chosen.remedy = advice
        return chosen

    return decorate


class Explained:
    """Adds a note to failures that pass. Does nothing else, so that it can be used again."""

    def __init__(self, note: str) -> None:
        self._note = note

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, (Exception, pytest.fail.Exception, SystemExit)):
            error.add_note(self._note)


def compare(got: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Fails unless both have the same items; tells of the first that differs.

    Of `assert got == wanted` pytest shows all that differs where `CI` is set, which takes minutes
    for long messages.
    """
    for number, (one, other) in enumerate(zip(got, wanted, strict=False)):
        if one != other:
            pytest.fail(f"item {number} is {reprlib.repr(one)}, not {reprlib.repr(other)}")
    if len(got) != len(wanted):
        pytest.fail(f"there are {len(got)} items, not {len(wanted)}")


def explanation(promise: str, advice: str) -> str:
    """What is told with a failure."""

    def paragraph(label: str, text: str) -> str:
        return textwrap.fill(f"{label}: {' '.join(text.split())}", 96, subsequent_indent="    ")

    return f"\n{paragraph('Promise', promise)}\n{paragraph('What to do', advice)}"


async def soon(awaitable: Awaitable[T], what: str, seconds: float) -> T:
    """Awaits, but fails the test if it takes too long, even if cancelling has no effect."""
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        pytest.fail(f"{what} did not end within {seconds:g} s")
    if task.cancelled():
        pytest.fail(f"{what} raised CancelledError, though nobody had cancelled it")
    return task.result()


async def here(awaitable: Awaitable[T], what: str, seconds: float) -> T:
    """Awaits in this very task, but fails the test if it takes too long."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await awaitable
    except TimeoutError:
        if not scope.expired():
            raise
    pytest.fail(f"{what} did not end within {seconds:g} s")


async def until(condition: Callable[[], Any], what: str, seconds: float) -> None:
    """Waits for a condition that nothing announces."""

    async def wait() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await soon(wait(), what, seconds)


async def turns(count: int) -> None:
    """Lets the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def descriptors() -> int:
    """How many files and sockets are open in this process; 0 where that is not known."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
