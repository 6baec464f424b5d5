"""The lifespan of a worker: a context entered before its first call, left after its last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, cast

from wool._client.routine import Routine, routine
from wool._peer.running import RUNNING
from wool._worker.held import HeldContext
from wool.exceptions import ConfigurationError

Enter = Callable[[], AbstractAsyncContextManager[Any]]

_REMEDY = (
    "lifespan must be a function that takes nothing and returns an async context manager, such as "
    "an async generator function below @contextlib.asynccontextmanager"
)


class Lifespan:
    """The context that a worker has entered, if any, on the loop of user code.

    Attributes:
        state: what it has yielded.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.state: Any = None
        self._loop = loop
        self._held: HeldContext | None = None

    async def enter(self, function: Enter) -> None:
        """Enters it, on its own loop.

        Raises:
            BaseException: whatever it raises.
        """
        held = HeldContext(partial(_make, function))
        await held.enter()
        self._held, self.state = held, held.value

    async def leave(self, grace: float) -> None:
        """Leaves it; on any loop.

        Args:
            grace: seconds until it is cancelled.
        """
        if self._held is None or self._loop.is_closed():
            return
        left = asyncio.run_coroutine_threadsafe(self._leave(self._held), self._loop)
        _, late = await asyncio.wait([asyncio.wrap_future(left)], timeout=grace)
        for leaving in late:
            leaving.cancel()

    async def _leave(self, held: HeldContext) -> None:
        try:
            await held.left()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {"message": "the lifespan of the worker has failed to end", "exception": error}
            )


def _make(function: Enter) -> AbstractAsyncContextManager[Any]:
    manager: Any = function()
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(f"{_REMEDY}; it has returned {manager!r}")
    return cast("AbstractAsyncContextManager[Any]", manager)


async def enter_here(lifespan: Enter) -> None:
    """Has the worker that runs this enter a lifespan."""
    running = RUNNING.get()
    assert running is not None
    await running.lifespan.enter(lifespan)


def entering(lifespan: Enter) -> Routine:
    """Returns the routine that has a worker enter a lifespan, as the first of its calls.

    A lifespan that is code, as part of a routine, shares its globals with the user's routines.
    """

    @routine
    async def lifespan_of_the_pool() -> None:
        await enter_here(lifespan)  # which workers import

    return vars(lifespan_of_the_pool)["__wool__"]


def checked_lifespan(given: Any) -> Enter | None:
    """Returns it, or raises ConfigurationError for what is no lifespan."""
    if given is None or callable(given):
        return cast("Enter | None", given)
    raise ConfigurationError(f"{_REMEDY}, not {given!r}")
