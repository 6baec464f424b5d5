"""A worker's report on itself: looked up on its I/O thread, also while the main one is blocked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from wool._client.identity import PROGRAM
from wool._client.pool import Pool
from wool._peer.stacks import lines_running
from wool._protocol.status import MOST_CALLS, CallStatus, Line, ProcessStatus
from wool._worker.callerpeer import CallerPeer
from wool._worker.execution import Execution
from wool._worker.executor import Executor
from wool._worker.memory import resident
from wool._workerinfo import WorkerInfo

BLOCKED_AFTER = 0.1
"""Seconds after which a loop that has not come round is said to be blocked."""


async def worker_status(
    info: WorkerInfo,
    uptime: float,
    executor: Executor,
    callers: Iterable[CallerPeer],
    pools: Iterable[Pool],
) -> ProcessStatus:
    """Returns what a worker is doing.

    Args:
        pools: what its routines make calls with.
    """
    began = time.perf_counter()
    blocked = await _blocked(executor)
    delay = time.perf_counter() - began
    callers = list(callers)
    served = [
        call
        for caller in callers
        for call in list(caller.serving.values())
        if isinstance(call, Execution)
    ]
    makes: list[CallStatus] = [call for pool in pools for call in pool.status().makes]
    return ProcessStatus(
        key=info.id.encode(),
        pid=info.pid,
        host=info.host,
        program=PROGRAM,
        worker=info.id,
        python=info.python,
        version=info.version,
        load=executor.load,
        memory=resident(),
        connections=len(callers),
        uptime=uptime,
        cpu=time.process_time(),
        ended=executor.ended,
        delay=delay,
        blocked=blocked,
        serves=tuple(call.status(blocked=blocked) for call in served[:MOST_CALLS]),
        omitted=max(0, len(served) - MOST_CALLS),
        makes=tuple(makes),
    )


async def _blocked(executor: Executor) -> tuple[Line, ...]:
    """Returns where the executor's thread stands if its loop does not turn; nothing if it does."""
    loop, turned = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
            loop.call_soon_threadsafe(turned.set)

    executor.call(tell)
    try:
        async with asyncio.timeout(BLOCKED_AFTER):
            await turned.wait()
    except TimeoutError:
        return lines_running(executor.frame)
    return ()
