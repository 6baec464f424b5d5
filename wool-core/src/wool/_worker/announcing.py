"""A worker made known to others."""

from __future__ import annotations

import asyncio

from wool._worker.discoveries import ChosenDiscovery, words
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError


class Announcing:
    """Announces a worker, from `open` until it is withdrawn. Lives on one event loop.

    That should be the loop of the worker's I/O: a discovery may answer for what it announces, which
    user code that blocks its own loop must not keep it from.
    """

    def __init__(self, chosen: ChosenDiscovery, worker: WorkerInfo) -> None:
        self._chosen = chosen
        self._worker = worker
        self._withdrawn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns once the worker is announced. Cancelling it withdraws the worker.

        Raises:
            WoolError: the discovery fails; says why.
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
            await self._ended(task, "announced")

    async def _announce(self, opened: asyncio.Future[None]) -> None:
        # A task of its own: the context has to be entered and left by the same one.
        async with self._chosen.backend.announce(self._worker):
            opened.set_result(None)
            await self._withdrawn.wait()

    def withdraw(self) -> None:
        """Begins to withdraw the worker."""
        self._withdrawn.set()

    async def aclose(self) -> None:
        """Withdraws the worker, unless that is done.

        Raises:
            WoolError: the discovery fails; says why.
        """
        self.withdraw()
        task, self._task = self._task, None
        if task is not None:
            await self._ended(task, "withdrawn")

    async def _ended(self, task: asyncio.Task[None], verb: str) -> None:
        try:
            await task
        except WoolError:
            raise
        except Exception as error:
            raise WoolError(
                f"the worker at {self._worker.address} cannot be {verb}, as {self._chosen} fails: "
                f"{words(error)}"
            ) from error
