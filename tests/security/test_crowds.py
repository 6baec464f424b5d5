"""Thousands of clients that never finish the handshake, at each of its stages."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import wool
from security.siegekit import (
    LOCAL,
    NETWORK,
    TOKEN,
    Target,
    besieged,
    served,
)
from security.siegepeers import Caller, dial, ending
from security.siegewire import Wire
from support.processes import rss
from support.waiting import until
from wool._addresses import is_socket
from wool._security.credentials import Authenticator, Token

HELD = 2000
"""How many of them are there at once, as far as they are concerned."""

SHOWN_OUT = 30.0
"""Seconds after which a silent client is not there any more; ten are promised."""

STAGES = {"connected": 3000, "encrypted": 400, "open": 300, "greeted": 300}


@asynccontextmanager
async def crowd(target: Target, stage: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A crowd in a process of its own; yields what makes more of it come."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "siegecrowd.py"),
        json.dumps([target.address, stage, HELD]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def come(count: int) -> None:
        stdin.write(f"{count}\n".encode())
        assert await stdout.readline() == b"here\n"

    try:
        yield come
    finally:
        process.kill()
        await process.wait()


def silent_on_the_wire(address: str, *, tls: bool) -> None:
    """Falls silent, and returns when the worker hangs up."""
    with Wire(address, tls=tls) as wire:
        wire.rest(SHOWN_OUT)


async def silent_in_the_handshake(address: str, credentials: Authenticator, *, hello: bool) -> None:
    """The same, before or after Hello."""
    caller = Caller(await dial(address, credentials), credentials, is_socket(address))
    if hello:
        await caller.say(caller.hello)
    assert "Welcome" not in await ending(caller.connection, SHOWN_OUT)


@asynccontextmanager
async def worker_at(channel: str) -> AsyncIterator[tuple[str, Authenticator]]:
    """Yields the address of a worker, and what its callers have."""
    if channel in NETWORK:
        token = Token(TOKEN)
        async with wool.Worker(address=f"{channel}://127.0.0.1:0", credentials=token) as worker:
            yield worker.info.address, token
    else:
        async with wool.WorkerPool(size=1, transport=channel.removesuffix("+unix")) as pool:
            yield pool.workers[0].address, pool._pool.keyring.local


@pytest.mark.slow
async def test_clients_that_never_finish_are_shown_out() -> None:
    """After ten seconds, at whatever stage, also where there is no crowd."""
    waits: dict[tuple[str, str], float] = {}

    async def wait(channel: str, stage: str, address: str, credentials: Authenticator) -> None:
        began = time.monotonic()
        if stage in ("open", "greeted"):
            await silent_in_the_handshake(address, credentials, hello=stage == "greeted")
        else:
            work = partial(silent_on_the_wire, address, tls=stage == "encrypted")
            await asyncio.get_running_loop().run_in_executor(threads, work)
        waits[channel, stage] = time.monotonic() - began

    threads = ThreadPoolExecutor(len(STAGES) * len([*LOCAL, *NETWORK]))
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        stack.enter_context(threads)
        for channel in [*LOCAL, *NETWORK]:
            there = await stack.enter_async_context(worker_at(channel))
            for stage in STAGES:
                if channel in NETWORK or stage != "encrypted":
                    group.create_task(wait(channel, stage, *there))
    assert all(1 < waited < SHOWN_OUT for waited in waits.values()), waits


@pytest.mark.parametrize(
    ("target", "stage"),
    [
        (channel, stage)
        for channel in [*LOCAL, *NETWORK]
        for stage in STAGES
        if channel in NETWORK or stage != "encrypted"  # there is no TLS within a machine
    ],
    indirect=["target"],
    scope="session",
)
async def test_clients_that_never_finish(target: Target, stage: str) -> None:
    """Cost the worker little, and keep nobody else from being served."""
    total = STAGES[stage]
    memory, files = rss(target.pid), target.descriptors

    async with besieged(target), crowd(target, stage) as come:
        first = min(total, HELD)
        await come(first)
        await served(target)
        rest = asyncio.ensure_future(come(total - first))
        while not rest.done():
            await served(target)
            await asyncio.wait([rest], timeout=0.1)
        await rest
        growth = (rss(target.pid) - memory) / (1 << 20)
    await until(lambda: target.descriptors <= files + 8)
    assert growth < 200
