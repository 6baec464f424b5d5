"""Pools, and the transports that they are tried on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import wool
from support.jobs import add, count, hold, nap
from support.waiting import pid_in, until

#: Transports between processes that faults are tried on; `FAULT_TRANSPORTS=unix` chooses.
CARRIERS: list[str] = os.environ.get("FAULT_TRANSPORTS", "unix,grpc,ws").split(",")
#: The same, and the one within a process.
TRANSPORTS = [*CARRIERS, "memory"]
#: In another process, and in this one: where it does not matter how they are connected.
ASIDE_AND_WITHIN = [CARRIERS[0], "memory"]


@asynccontextmanager
async def opened(size: int = 2, **options: Any) -> AsyncIterator[wool.WorkerPool]:
    """A pool all of whose workers are there."""
    async with wool.WorkerPool(size=size, **options) as pool:
        await pool.wait(size, timeout=30)
        yield pool


def pids(pool: wool.WorkerPool) -> set[int]:
    return {worker.pid for worker in pool.workers}


@asynccontextmanager
async def unharmed(folder: Path, transport: str | None = None) -> AsyncIterator[None]:
    """One worker that must be the same afterwards, with a call that runs all the while."""
    async with opened(1, transport=transport) as pool:
        workers = {worker.id for worker in pool.workers}
        beside = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        async with asyncio.timeout(50):
            yield
            for _ in range(3):
                assert await add(1, 2) == 3
                assert [i async for i in count(3)] == [0, 1, 2]
            (folder / "go").touch()
            assert await beside in pids(pool)
        assert {worker.id for worker in pool.workers} == workers


async def all_serve(pool: wool.WorkerPool) -> None:
    """Waits until each of the workers has served a call, and checks that nobody else has.

    One that is slow to begin may have all that it got taken back, once or twice.
    """
    served: set[int] = set()

    async def serve() -> bool:
        served.update(await asyncio.gather(*(nap(0.05) for _ in range(8))))
        return served >= pids(pool)

    await until(serve, what="all workers to serve")
    assert served == pids(pool)


async def arrived(pool: wool.WorkerPool, count: int) -> None:
    """Waits until so many calls have come to workers that have not begun them."""

    async def pending() -> bool:
        return sum(call.state == "pending" for call in await pool.calls()) == count

    await until(pending, what=f"{count} calls to arrive")
