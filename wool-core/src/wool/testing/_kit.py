"""Shared by the kits: advice, bounded waits, tests that leave nothing behind, other processes."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import inspect
import json
import logging
import os
import random
import reprlib
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self, TypeVar

import pytest

T = TypeVar("T")
Check = TypeVar("Check", bound=Callable[..., Any])

STARTING = 30.0
"""Seconds that a process may take to start."""


def remedy(advice: str) -> Callable[[Check], Check]:
    """Gives a check advice, which the plug-in tells with its promise, the docstring, on failure."""

    def decorate(check: Check) -> Check:
        check.remedy = advice  # type: ignore[attr-defined]
        return check

    return decorate


def chance(seed: int) -> random.Random:
    """Numbers that look random but are the same each time."""
    return random.Random(seed)  # noqa: S311


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


# Waits ----------------------------------------------------------------------------------------


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


async def cancelled(task: asyncio.Future[Any], what: str, seconds: float) -> None:
    """Cancels something and waits for it, however it ends."""
    task.cancel()
    await asyncio.wait([task], timeout=seconds)
    assert task.done(), f"a cancelled {what} goes on"


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


# Leftovers ------------------------------------------------------------------------------------


def descriptors() -> int:
    """How many files and sockets are open in this process; 0 where that is not known."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def leaves_nothing(use: Callable[[], Awaitable[None]], patience: float) -> None:
    """Fails if using something again and again leaves descriptors or threads."""
    times = 12

    def open_now() -> tuple[int, int]:
        """Threads of the loop's executor stay: there are some for everybody."""
        running = [one for one in threading.enumerate() if "asyncio_" not in one.name]
        return descriptors(), len(running)

    def as_before() -> bool:
        """A few may come and go by themselves."""
        return all(now < then + times for now, then in zip(open_now(), before, strict=True))

    for _ in range(3):
        await use()  # what is opened for the first time may stay
    gc.collect()  # or what other tests have left may go meanwhile
    before = open_now()
    for _ in range(times):
        await use()
    gc.collect()
    await until(as_before, f"having {before} descriptors and threads again, as before,", patience)


@asynccontextmanager
async def tidy(caplog: pytest.LogCaptureFixture, patience: float) -> AsyncGenerator[None]:
    """Fails if a test leaves tasks behind, or has anything logged that alarms."""
    gc.collect(1)  # complaints of finalizers belong to their test; older garbage takes long
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:  # a task may need some turns of the loop to notice that all has been closed
        await asyncio.wait(left, timeout=patience)
    left = {task for task in left if not task.done()}
    assert not left, (
        f"tasks are left behind; cancel and await what has been started when it is closed: {left}"
    )
    gc.collect(1)
    await asyncio.sleep(0)
    for record in (*caplog.get_records("call"), *caplog.records):
        message = record.getMessage()
        assert record.levelno < logging.WARNING, (
            f"logged, though nothing was wrong; mend the cause, or log it as INFO: {message}"
        )


# Other processes ------------------------------------------------------------------------------


class Suite(Protocol):
    """A suite that has tests with other processes."""

    patience: float

    async def play(self, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
        """The part of the other process, given an order and the lines that it is told later."""
        ...


class Process:
    """Another process, which makes the same suite and has it `play`.

    Args:
        suite: of the test.
        order: what to do, as its `play` understands it.
    """

    def __init__(self, suite: Suite, **order: Any) -> None:
        kind = type(suite)
        assert "<locals>" not in kind.__qualname__, "a suite must be a class of a module"
        message = {
            "path": sys.path,
            "module": kind.__module__,
            "file": os.path.abspath(inspect.getfile(kind)),
            "suite": kind.__qualname__,
            "order": order,
        }
        program = "from wool.testing._kit import main; main()"
        self._patience = suite.patience
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(message)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.kill, self.signal = self._process.kill, self._process.send_signal

    async def line(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        reading = asyncio.to_thread(self._process.stdout.readline)
        said = await soon(reading, "starting a process", STARTING + self._patience)
        said = said.decode().strip()
        assert said, "the other process has failed; its stderr says why"
        return said

    def say(self, line: str) -> None:
        """Tells it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await asyncio.to_thread(self._process.communicate)


def main() -> None:
    """Does, in the other process, what the command line says, until the test lets go of us."""
    message = json.loads(sys.argv[1])
    sys.path[:] = message["path"]
    # The suite comes from its file: pytest may import modules that nobody else can name.
    spec = importlib.util.spec_from_file_location(message["module"], message["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[message["module"]] = module
    spec.loader.exec_module(module)
    suite: Any = functools.reduce(getattr, message["suite"].split("."), module)
    asyncio.run(_play(suite(), message["order"]))


async def _play(suite: Suite, order: dict[str, Any]) -> None:
    told = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(told.put_nowait, line.strip())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await suite.play(order, told)


def say(line: str) -> None:
    """Tells the test something, in the other process."""
    print(line, flush=True)  # noqa: T201
