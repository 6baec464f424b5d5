"""Stalls: calls that keep the loop of a worker from turning while others wait for it are named."""

from __future__ import annotations

import asyncio
import logging

from wool._peer.stacks import lines_running
from wool._worker.execution import Execution
from wool._worker.executor import Executor, Queued

LONG = 1.0
"""Seconds without a turn of the loop after which a call is named."""

_log = logging.getLogger("wool.worker")


class StallWatch:
    """Looks, from the I/O thread, whether the loop of an executor turns while it has calls.

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
