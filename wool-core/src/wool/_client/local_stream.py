"""Steps of an async generator, wherever it runs.

The wrapper of a routine drives one of these. A step never raises: it says whether a value was
yielded, and otherwise with which exception, if any, the generator ended. So no frame of Wool's
stands in a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from wool._peer.chaining import set_context


class LocalStream:
    """Drives a generator in this very process.

    Attributes:
        error: the exception that the generator ended with, if it ended so.
    """

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.error: BaseException | None = None
        self._generator = generator
        self._value: Any = None
        self._closing = False
        # The loop closes the wrapper, when it ends or the wrapper is collected, and the wrapper
        # closes this one. Nobody else must, so the loop does not get to know of it.
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, _leave_alone)
        try:
            self._first: Awaitable[Any] | None = generator.asend(None)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    async def step(self, value: Any, thrown: bool) -> bool:
        """Sends or throws `value` in; returns whether the generator yielded."""
        first, self._first = self._first, None
        self._closing = thrown and isinstance(value, GeneratorExit)
        try:
            if first is not None:
                self._value = await first
            elif thrown:
                self._value = await self._generator.athrow(value)
            else:
                self._value = await self._generator.asend(value)
            return True
        except StopAsyncIteration:
            return False
        except BaseException as error:
            traceback = error.__traceback__
            self.error = error.with_traceback(traceback and traceback.tb_next)
            return False

    def given_up(self, exception: BaseException) -> bool:
        """Whether a generator that ignored GeneratorExit is being collected.

        Then it is closed without a loop that could run it: nothing may be awaited any more.
        """
        return self._closing and isinstance(exception, GeneratorExit)

    def settle(self, error: BaseException, context: BaseException | None) -> None:
        """Restores the `__context__` of an error that was raised again: it was right before."""
        set_context(error, context)

    def take(self) -> Any:
        """Returns what was yielded, and keeps no reference to it."""
        value, self._value = self._value, None
        return value


def _leave_alone(generator: object) -> None:
    """Finalizes a generator that its wrapper closes."""
