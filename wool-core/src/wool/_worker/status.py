"""A worker as its I/O thread sees it, also while the main one is blocked: reports, and stalls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

from wool._client.identity import PROGRAM
from wool._client.pool import Pool
from wool._peer.stacks import lines_running
from wool._protocol.status import MOST_CALLS, CallStatus, Line, ProcessStatus
from wool._worker.callerpeer import CallerPeer
from wool._worker.execution import Execution
from wool._worker.executor import Executor, Queued
from wool._worker.memory import resident
from wool._workerinfo import WorkerInfo

BLOCKED_AFTER = 0.1
"""Seconds after which a loop that has not come round is said to be blocked."""

LONG = 1.0
"""Seconds without a turn of the loop after which a call is named."""

_log = logging.getLogger("wool.worker")


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


class StallWatch:
    """Looks whether the loop of an executor turns while it has calls, and names those that keep it.

    Args:
        where: names the worker.
    """

    def __init__(self, executor: Executor, where: str) -> None:
        self._executor = executor
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._turned = True
        self._named: set[Queued | None] = set()  # None: none of them, but a task of one

    def start(self) -> None:
        """Looks from now on."""
        if self._timer is None:
            self._timer = self._loop.call_later(LONG, self._look)

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        executor = self._executor
        self._timer = self._loop.call_later(LONG, self._look)
        if not self._turned:
            if executor.delayed and not executor.debuggers.prompts:
                self._name()
            return
        self._named = {call for call in self._named if call in executor.running}
        if executor.running:
            self._turned = False
            executor.call(self._note_turn)

    def _note_turn(self) -> None:
        """Runs on the loop that is watched."""
        self._turned = True

    def _name(self) -> None:
        """Says which call keeps the loop, and at which line, unless that has been said."""
        lines = lines_running(self._executor.frame)
        calls = (c for c in list(self._executor.running) if isinstance(c, Execution))
        call = next((call for call in calls if call.stands), None)
        if not lines or call in self._named:
            return
        self._named.add(call)
        _log.warning(
            "%s has kept the event loop of %s from turning for a second, while other calls wait, "
            "at %s: have a thread do what takes long (asyncio.to_thread), or limit the concurrency "
            "of the worker to 1",
            "a task that a routine has started" if call is None else f"{call.name}()",
            self._where,
            lines[-1],
        )
