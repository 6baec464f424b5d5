"""Workers are replaced one after another while programs use them: no call notices."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import wool

ROUNDS = 4


@wool.routine
async def inner(x: int) -> int:
    await asyncio.sleep(0.002)
    return x


@wool.routine
async def outer(x: int) -> int:
    await asyncio.sleep(0.01)
    return await inner(x) + 1


@wool.routine
async def steps(count: int) -> AsyncGenerator[int]:
    for number in range(count):
        yield await inner(number)


@pytest.mark.parametrize("discovery", ["shm", "zeroconf"])
async def test_no_call_is_lost(start: Any, discovery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_SHM__NAMESPACE", secrets.token_hex(4))
    monkeypatch.setenv("WOOL_ZEROCONF__NAMESPACE", secrets.token_hex(4))
    monkeypatch.setenv("WOOL_ZEROCONF__INTERFACES", "127.0.0.1")
    serving = [start("--discovery", discovery) for _ in range(2)]
    for served in serving:
        await served.says("announced")
    done = {"calls": 0, "streams": 0}
    enough = asyncio.Event()

    async def call(number: int) -> None:
        while not enough.is_set():
            assert await outer(number) == number + 1
            done["calls"] += 1

    async def stream() -> None:
        while not enough.is_set():
            assert [number async for number in steps(5)] == [0, 1, 2, 3, 4]
            done["streams"] += 1

    async with wool.WorkerPool(discovery=discovery, quorum=2), asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(call(number))
            tasks.create_task(stream())
        for _ in range(ROUNDS):
            before = done["calls"]
            serving.append(start("--discovery", discovery))
            await serving[-1].says("announced")
            leaves = serving.pop(0)
            leaves.process.send_signal(signal.SIGTERM)
            assert await leaves.exit() == 0
            while done["calls"] < before + 20:
                await asyncio.sleep(0.01)
        enough.set()
    assert done["streams"] > ROUNDS
