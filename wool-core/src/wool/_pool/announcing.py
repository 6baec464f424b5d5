"""The own workers of a pool, made known to others."""

from __future__ import annotations

import asyncio
import logging

from wool._pool.membership import RETRY_FIRST, RETRY_MOST
from wool._worker.discoveries import ChosenDiscovery, words
from wool._workerinfo import WorkerInfo

_log = logging.getLogger("wool.discovery")


async def announce(chosen: ChosenDiscovery, worker: WorkerInfo) -> None:
    """Announces a worker until cancelled; a discovery that fails is asked again.

    It cannot make the pool fail, which knows its own workers without it.
    """
    task = asyncio.current_task()
    assert task is not None
    delay, told = RETRY_FIRST, ""
    while True:
        try:
            async with chosen.backend.announce(worker):  # entered and left by the same task
                await asyncio.get_running_loop().create_future()
        except Exception as error:
            verb = "withdraw" if task.cancelling() else "announce"
            if words(error) != told:
                told = words(error)
                _log.warning(
                    "%s cannot %s the worker at %s: %s", chosen, verb, worker.address, told
                )
            if task.cancelling():
                return
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_MOST)
