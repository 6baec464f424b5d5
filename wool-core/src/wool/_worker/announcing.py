"""A worker made known to others."""

from __future__ import annotations

import asyncio

from wool import abc
from wool._workerinfo import WorkerInfo


class Announcing:
    """Announces a worker, from `open` until it is withdrawn. Lives on one event loop.

    That should be the loop of the worker's I/O: a discovery may answer for what it announces, which
    user code that blocks its own loop must not keep it from.
    """

    def __init__(self, discovery: abc.Discovery, worker: WorkerInfo) -> None:
        self._discovery = discovery
        self._worker = worker
        self._withdrawn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns once the worker is announced. Cancelling it withdraws the worker.

        Raises:
            Exception: whatever the discovery raises.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        task = self._task = loop.create_task(self._announce(opened))
        try:
            await asyncio.wait([opened, task], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.done():
            await task  # raises what went wrong

    async def _announce(self, opened: asyncio.Future[None]) -> None:
        async with self._discovery.announce(self._worker):  # entered and left by the same task
            opened.set_result(None)
            await self._withdrawn.wait()

    def withdraw(self) -> None:
        """Begins to withdraw the worker."""
        self._withdrawn.set()

    async def aclose(self) -> None:
        """Withdraws the worker, unless that is done.

        Raises:
            Exception: whatever the discovery raises.
        """
        self.withdraw()
        task, self._task = self._task, None
        if task is not None:
            await task
