"""The I/O side of a worker, and what its other thread does to it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec

from wool._client.identity import hello
from wool._code.modules import Modules
from wool._code.received import ReceivedModules
from wool._code.rules import Rules
from wool._peer.references import Lent
from wool._worker.executor import Executor
from wool._worker.server import Server, Setup
from wool._worker.service import worker_info
from wool._worker.transports import Transports


class Caller:
    """As much of a caller as a server that drains looks at."""

    drained = True

    def __init__(self) -> None:
        self.serving = {1: None}
        self.lent = Lent()

    def drain(self) -> None: ...


def make_server() -> Server:
    nobody: Any = None
    setup = Setup(
        id="id",
        tags=(),
        transport="unix",
        transports=Transports({}),
        keyring=nobody,
        serializer=nobody,
        serializer_name="cloudpickle",
        listen=None,
    )
    info = worker_info("id", "unix://x", [], "cloudpickle")
    return Server(setup, info, Executor(asyncio.get_running_loop(), None), nobody)


async def test_a_call_that_ends_on_the_other_thread_as_the_worker_drains() -> None:
    """Its answer was being sent there when that began: the I/O thread sleeps, and must wake up."""
    threads: list[int] = []

    class Quiet(asyncio.Event):
        def set(self) -> None:
            threads.append(threading.get_ident())
            super().set()

    server = make_server()
    server._quiet = Quiet()
    caller: Any = Caller()
    server._callers.add(caller)
    draining = asyncio.create_task(server.drain(60))
    while not server.draining:
        await asyncio.sleep(0)

    def end() -> None:
        caller.serving.clear()
        server.call_ended()

    await asyncio.to_thread(end)
    async with asyncio.timeout(20):
        await draining
    assert threads == [threading.get_ident()]


async def test_modules_of_a_pool_that_was_opened_in_this_process() -> None:
    """They are here, also for those of its workers that are elsewhere and call this one."""
    server = make_server()
    relayed = Modules(received=ReceivedModules("here")).within("pool", Rules())
    peer = msgspec.structs.replace(hello([], security="", pool="pool"), process=b"another")
    assert server._modules_of(peer) is relayed
