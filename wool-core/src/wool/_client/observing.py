"""Tells observers, and a balancer, of the calls that this process makes; not involved when there
are none.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from wool._client.client import CallingPool
from wool._client.remote import RemoteStream, Trace, call
from wool._client.requests import describe
from wool._client.routine import Routine
from wool._plugins.observers import FINISHED, STARTED
from wool.plugins import Outcome


class Observation:
    """One call under observation."""

    def __init__(self, pool: CallingPool, routine: Routine) -> None:
        self._observers = pool.observers
        self._began = time.monotonic()
        self._info = describe(pool.id, routine)
        self.trace = Trace(self._info)
        for observer in self._observers:
            observer.tell(STARTED, self._info)

    def end(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Tells how the call has ended."""
        call = self.trace.call
        holder = call.holder if call is not None else None
        cancelled = cancelled or isinstance(error, asyncio.CancelledError)
        outcome = Outcome(
            status="cancelled" if cancelled else "returned" if error is None else "raised",
            error=error,
            worker=holder.info if holder is not None else None,
            seconds=time.monotonic() - self._began,
        )
        for observer in self._observers:
            observer.tell(FINISHED, self._info, outcome=outcome)


async def observed_call(
    pool: CallingPool, routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None]:
    """As `remote.call`."""
    observation = Observation(pool, routine)
    try:
        value, error = await call(pool, routine, args, kwargs, observation.trace)
    except BaseException as failure:
        observation.end(failure)
        raise
    observation.end(error)
    return value, error


class ObservedStream(RemoteStream):
    """A remote stream whose first step and whose end observers are told of."""

    _observation: Observation | None = None
    _ended = False

    async def step(self, value: Any, thrown: bool) -> bool:
        """As `RemoteStream.step`."""
        if self._observation is None:
            pool, routine = self._pool, self._open[0]
            self._observation = Observation(pool, routine)
            self.trace = self._observation.trace
        try:
            yielded = await super().step(value, thrown)
        except BaseException as failure:
            self._end(failure)
            raise
        if not yielded:
            closed = thrown and isinstance(value, GeneratorExit) and self.error in (None, value)
            self._end(None if closed else self.error, cancelled=closed)
        return yielded

    def given_up(self, exception: BaseException) -> bool:
        """As `RemoteStream.given_up`."""
        if super().given_up(exception):
            self._end(None, cancelled=True)
            return True
        return False

    def _end(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        if self._observation is not None and not self._ended:
            self._ended = True
            self._observation.end(error, cancelled=cancelled)
