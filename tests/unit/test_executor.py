"""When a worker begins the calls that it has received."""

from __future__ import annotations

import asyncio
from typing import Any

from wool._worker.executor import Executor


class Call:
    """As much of an execution as the executor needs."""

    task: asyncio.Task[None]

    def __init__(self, began: asyncio.Event) -> None:
        self.began = began
        self.begun = False

    async def run(self) -> None:
        self.begun = True
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
    assert not executor.hungry
    executor.release()
    await began.wait()
    assert executor.hungry


async def test_other_threads_hold_nothing() -> None:
    executor = Executor(asyncio.get_running_loop(), None)
    await submitted(executor).wait()
    assert not await asyncio.to_thread(executor.hold)
    await submitted(executor).wait()
