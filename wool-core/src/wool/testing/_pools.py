"""Pools that live on an event loop of their own, for tests on any loop or on none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from wool import WorkerPool
from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT


def transports() -> list[str]:
    """The names of the transports that are installed, the quickest first."""
    names = lookup.process().names_of(TRANSPORT)
    return sorted(names, key=lambda name: (name != "memory", name != "unix", name))


@contextmanager
def opened(options: dict[str, Any]) -> Generator[WorkerPool]:
    """Opens a pool on a loop in another thread, and activates it in this one."""
    pool = WorkerPool(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop,), name="wool-test-pool", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(pool.__aenter__(), loop).result()
        try:
            with pool.use():
                yield pool
        finally:
            leaving = pool.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leaving, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
