"""Steps of an async generator, wherever it runs.

The wrapper of a routine drives one of these. A step never raises: it says whether a value was
yielded, and otherwise with which exception, if any, the generator ended. So no frame of Wool's
stands in a traceback.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any


class LocalStream:
    """Drives a generator in this very process.

    Attributes:
        error: what the generator raised, if that is how it ended.
    """

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.error: BaseException | None = None
        self._generator = generator
        self._value: Any = None

    async def step(self, value: Any, thrown: bool) -> bool:
        """Sends or throws `value` in; returns whether the generator yielded."""
        try:
            if thrown:
                self._value = await self._generator.athrow(value)
            else:
                self._value = await self._generator.asend(value)
            return True
        except StopAsyncIteration:
            return False
        except BaseException as error:
            assert error.__traceback__ is not None
            self.error = error.with_traceback(error.__traceback__.tb_next)
            return False

    def take(self) -> Any:
        """Returns what was yielded, and keeps no reference to it."""
        value, self._value = self._value, None
        return value
