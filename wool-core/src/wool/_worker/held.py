"""A context that is held open: entered and left in one task, whoever asks for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any


class HeldContext:
    """An async context manager in a task of its own, on the loop that enters it.

    Cancel scopes and task groups may be open all the time that it is held.

    Args:
        make: makes the context manager.

    Attributes:
        value: what it has yielded.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self.value: Any = None
        self._make = make
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Returns once it is entered. Cancelling this leaves it.

        Raises:
            BaseException: whatever it raises.
        """
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._task = asyncio.create_task(self._hold(entered))
        try:
            await asyncio.wait([entered, task], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not entered.done():
            self._task = None
            await task

    async def _hold(self, entered: asyncio.Future[None]) -> None:
        async with self._make() as self.value:
            entered.set_result(None)
            await self._over.wait()

    def leave(self) -> None:
        """Begins to leave it."""
        self._over.set()

    async def left(self) -> None:
        """Leaves it, unless that is done; cancelling this cancels what it does meanwhile.

        Raises:
            BaseException: whatever it raises.
        """
        self.leave()
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.cancelled():
            task.result()
