"""When a worker begins the calls that it has received."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from wool._worker.executor import BEGIN, Executor


class Call:
    """As much of an execution as the executor needs."""

    task: asyncio.Task[None]

    def __init__(self, began: asyncio.Event) -> None:
        self.began = began

    async def run(self) -> None:
        await BEGIN
        self.began.set()


def submitted(executor: Executor) -> asyncio.Event:
    call: Any = Call(asyncio.Event())
    executor.submit(call)
    return call.began


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_call_begins_while_it_is_held() -> None:
    """Connections are being made on the loop that a call might block."""
    executor = Executor(asyncio.get_running_loop(), None)
    await submitted(executor).wait()
    assert executor.hold()
    assert executor.hold()
    began = submitted(executor)
    await turns()
    executor.release()
    await turns()
    assert not began.is_set()
    assert not executor.idle
    executor.release()
    await began.wait()
    assert executor.idle


async def test_other_threads_hold_nothing() -> None:
    executor = Executor(asyncio.get_running_loop(), None)
    await submitted(executor).wait()
    assert not await asyncio.to_thread(executor.hold)
    await submitted(executor).wait()


class Collecting(selectors.DefaultSelector):
    """Runs a finalizer where garbage may be collected: as the loop is about to wait."""

    finalizer: Callable[[], object] | None = None

    def select(self, timeout: float | None = None) -> Any:
        finalizer, self.finalizer = self.finalizer, None
        if finalizer is not None:
            finalizer()
        return super().select(timeout)


def test_what_a_finalizer_says_is_heard_at_once() -> None:
    """On the loop's own thread as well, which has decided already how long to wait."""
    selector = Collecting()
    loop = asyncio.SelectorEventLoop(selector)

    async def run() -> None:
        executor, heard = Executor(loop, None), asyncio.Event()
        await submitted(executor).wait()
        selector.finalizer = lambda: executor.call(heard.set)
        async with asyncio.timeout(10):
            await heard.wait()

    loop.run_until_complete(run())
    loop.close()
