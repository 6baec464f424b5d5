"""Tells observers of the calls that this worker executes; not involved when there are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType
from typing import Any

from wool._plugins.observers import BEGAN, ENDED, Observer
from wool.plugins import CallInfo, Outcome


def observed(
    function: FunctionType, observers: tuple[Observer, ...], call: CallInfo
) -> Callable[..., Any]:
    """Returns what stands for a routine's function in one call that observers are told of."""
    run = _Observed(observers, call)
    if call.stream:
        return lambda *args, **kwargs: _Generator(run, partial(function, *args, **kwargs))
    return lambda *args, **kwargs: run.wait(partial(function, *args, **kwargs), ends=True)


class _Observed:
    """One call under observation."""

    def __init__(self, observers: tuple[Observer, ...], call: CallInfo) -> None:
        self._observers = observers
        self._call = call
        self._began = 0.0

    async def wait(self, step: Callable[[], Awaitable[Any]], *, ends: bool) -> Any:
        """Awaits what user code does; its first step begins the call.

        Args:
            ends: whether the call is over when it returns.
        """
        if not self._began:
            self._began = time.monotonic()
            for observer in self._observers:
                observer.tell(BEGAN, self._call)
        try:
            value = await step()
        except StopAsyncIteration:
            self._end("returned")
            raise
        except (asyncio.CancelledError, GeneratorExit) as error:
            self._end("cancelled", error)
            raise
        except BaseException as error:
            self._end("raised", error)
            raise
        if ends:
            self._end("returned")
        return value

    def _end(self, status: Any, error: BaseException | None = None) -> None:
        seconds = time.monotonic() - self._began
        outcome = Outcome(status=status, error=error, seconds=seconds)
        for observer in self._observers:
            observer.tell(ENDED, self._call, outcome=outcome)


class _Generator:
    """An async generator whose first step and whose end observers are told of."""

    def __init__(self, run: _Observed, make: Callable[[], Any]) -> None:
        self._run = run
        self._generator = make()

    async def asend(self, value: Any) -> Any:
        return await self._run.wait(partial(self._generator.asend, value), ends=False)

    async def athrow(self, exception: BaseException) -> Any:
        return await self._run.wait(partial(self._generator.athrow, exception), ends=False)
