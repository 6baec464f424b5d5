"""The I/O side of a worker, and what its other thread does to it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from wool._worker.executor import Executor
from wool._worker.server import Server
from wool._worker.service import worker_info


class Caller:
    """As much of a caller as a server that drains looks at."""

    calls = 1
    borrows = False
    drained = True

    def drain(self) -> None: ...


async def test_a_call_that_ends_on_the_other_thread_as_the_worker_drains() -> None:
    """Its answer was being sent there when that began: the I/O thread sleeps, and must wake up."""
    threads: list[int] = []

    class Quiet(asyncio.Event):
        def set(self) -> None:
            threads.append(threading.get_ident())
            super().set()

    nobody: Any = None
    executor = Executor(asyncio.get_running_loop(), None)
    server = Server(
        worker_info("id", "unix://x", [], "cloudpickle"),
        executor,
        acceptor=nobody,
        routes=nobody,
        keyring=nobody,
        serializer=nobody,
        observers=(),
    )
    server._quiet = Quiet()
    caller: Any = Caller()
    server._callers.add(caller)
    draining = asyncio.create_task(server.drain(60))
    while not server.draining:
        await asyncio.sleep(0)

    def end() -> None:
        caller.calls = 0
        server.call_ended()

    await asyncio.to_thread(end)
    async with asyncio.timeout(20):
        await draining
    assert threads == [threading.get_ident()]
