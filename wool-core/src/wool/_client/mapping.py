"""`map`: a routine over many inputs, with a bound on how many calls are out at once."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from typing import Any, Generic, Literal, TypeVar, cast, overload

from wool._client.view import current_pool

T = TypeVar("T")
PER_WORKER = 16
LOCALLY = 16


@overload
def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    ordered: bool = True,
    return_exceptions: Literal[False] = False,
) -> AsyncGenerator[T, None]: ...
@overload
def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    ordered: bool = True,
    return_exceptions: bool,
) -> AsyncGenerator[T | BaseException, None]: ...


async def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
) -> AsyncGenerator[T | BaseException, None]:
    """Calls a routine with the items of iterables, and yields the results.

    Items are taken as calls are made, so an endless iterable will do. Leaving the loop early, with
    `aclose` or by an exception, cancels the calls that are out and waits for them to end. Once a
    call has failed no others are made; its exception is raised when its turn comes, after the
    results that precede it, and the calls that are still out are cancelled.

    Args:
        routine: an async function; a routine runs on the workers.
        iterables: as for the built-in `map`, it stops with the shortest; may be asynchronous.
        limit: calls out at once; by default 16 for each worker that there is at the first step, or
            that the pool may start, and 16 where no pool is open.
        ordered: yield results in the order of the inputs, or as they come.
        return_exceptions: yield exceptions as if they were results, and go on.

    Raises:
        ValueError: at the first step: `limit` is below 1.
        TypeError: likewise: there is no iterable, or what is called is not async.
    """
    if not iterables:
        raise TypeError("map needs at least one iterable beside the routine")
    if limit is None:
        pool = current_pool()
        limit = LOCALLY if pool is None else PER_WORKER * max(1, pool._pool.most)
    if limit < 1:
        raise ValueError(f"limit must be at least 1: {limit}")
    window: _Window[T] = _Window(routine, iterables, limit, go_on=return_exceptions)
    try:
        while await window.advance():
            ready = window.ready(ordered)
            while ready:
                yield _result(ready.popleft(), go_on=return_exceptions)
    finally:
        await window.aclose()


def _result(task: asyncio.Task[T], *, go_on: bool) -> T | BaseException:
    """Returns what a call came to; nobody but the consumer keeps it."""
    try:
        return task.result()
    except (Exception, asyncio.CancelledError) as error:
        if not go_on:
            raise
        return error


class _Window(Generic[T]):
    """The calls of a `map` that are out. Inputs are awaited while results are."""

    def __init__(
        self,
        routine: Callable[..., Coroutine[Any, Any, T]],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        limit: int,
        *,
        go_on: bool,
    ) -> None:
        self._routine = routine
        self._arriving: AsyncGenerator[tuple[Any, ...], None] | None = None
        self._at_hand: Iterator[tuple[Any, ...]] = iter(())
        if any(isinstance(iterable, AsyncIterable) for iterable in iterables):
            self._arriving = _zip(iterables)
        else:
            self._at_hand = zip(*cast("tuple[Iterable[Any], ...]", iterables), strict=False)
        self._limit = limit
        self._go_on = go_on  # after a call has failed
        self._exhausted = False  # no more calls are to be made
        self._next: asyncio.Task[tuple[Any, ...]] | None = None
        self._out: dict[asyncio.Task[T], None] = {}
        self._finished: deque[asyncio.Task[T]] = deque()  # since it was last looked
        self._done: set[asyncio.Task[T]] = set()  # all whose results are still to be yielded
        self._changed = asyncio.Event()

    async def advance(self) -> bool:
        """Waits until a call has finished; False once all results have been taken."""
        while True:
            self._fill()
            if self._finished:
                return True
            if self._next is None and not self._out:
                return False
            self._changed.clear()
            await self._changed.wait()

    def ready(self, ordered: bool) -> deque[asyncio.Task[T]]:
        """Takes the calls whose results are to be yielded now."""
        finished, self._finished = self._finished, deque()
        self._done.update(finished)
        first = itertools.takewhile(self._done.__contains__, self._out)
        ready = deque(first) if ordered else finished
        for task in ready:
            del self._out[task]
        self._done.difference_update(ready)
        return ready

    async def aclose(self) -> None:
        """Cancels what is out and waits for it to end."""
        tasks: list[asyncio.Task[Any]] = list(self._out)
        if self._next is not None:
            tasks.append(self._next)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._arriving is not None:
            await self._arriving.aclose()

    def _fill(self) -> None:
        """Makes calls with the inputs there are, up to the limit."""
        while not self._exhausted and len(self._out) < self._limit:
            try:
                if self._arriving is None:
                    args = next(self._at_hand)
                elif (args := self._arrived(self._arriving)) is None:
                    return
            except (StopIteration, StopAsyncIteration):
                self._exhausted = True
                return
            call = self._routine(*args)
            if not inspect.isawaitable(call):
                name = getattr(self._routine, "__qualname__", repr(self._routine))
                raise TypeError(
                    f"map awaits what it calls, and {name}() has returned a {type(call).__name__}: "
                    "give it an `async def` that does not yield"
                )
            task = asyncio.ensure_future(call)
            self._out[task] = None
            task.add_done_callback(self._note)

    def _arrived(self, inputs: AsyncGenerator[tuple[Any, ...], None]) -> tuple[Any, ...] | None:
        """Returns an input that has arrived, or starts waiting for it and returns None."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(inputs))
            self._next.add_done_callback(lambda _: self._changed.set())
        if not self._next.done():
            return None
        arrived, self._next = self._next, None
        return arrived.result()

    def _note(self, task: asyncio.Task[T]) -> None:
        self._finished.append(task)
        if not self._go_on and (task.cancelled() or task.exception() is not None):
            self._exhausted = True
        self._changed.set()


async def _zip(
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
) -> AsyncGenerator[tuple[Any, ...], None]:
    iterators = [_iterate(iterable) for iterable in iterables]
    while True:
        items: list[Any] = []
        for iterator in iterators:
            try:
                items.append(await anext(iterator))
            except StopAsyncIteration:
                return
        yield tuple(items)


def _iterate(iterable: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    return aiter(iterable) if isinstance(iterable, AsyncIterable) else _asynchronous(iterable)


async def _asynchronous(iterable: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for item in iterable:
        yield item
