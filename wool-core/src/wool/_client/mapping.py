"""`map`: a routine over many inputs, with a bound on how many calls are out at once.

One call is for one input, or for a chunk of them. A chunk is a stream that runs ahead: it calls the
function with each input in turn, and yields what that has come to.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from functools import partial
from typing import Any, Literal, TypeVar, cast, overload

from wool._client.routine import Routine
from wool._client.routine import routine as as_routine
from wool._client.view import current_pool

T = TypeVar("T")
Args = tuple[Any, ...]
Outcome = tuple[Any, BaseException | None]
Chunks = Callable[[list[Args], bool], AsyncGenerator[Outcome, None]]

PER_WORKER = 16
LOCALLY = 16


@overload
def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    chunksize: int = 1,
    ordered: bool = True,
    return_exceptions: Literal[False] = False,
) -> AsyncGenerator[T, None]: ...
@overload
def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    chunksize: int = 1,
    ordered: bool = True,
    return_exceptions: bool,
) -> AsyncGenerator[T | BaseException, None]: ...


async def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    chunksize: int = 1,
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
        chunksize: how many inputs are one call of a routine, which takes them in turn and in one
            context: for tiny ones, of which a call for each would take longer than they do. Each
            input has its own result or exception all the same. If the worker is lost or something
            cannot be sent, that is the exception of each input whose result is not there yet.
        ordered: yield results in the order of the inputs, or as they come.
        return_exceptions: yield exceptions as if they were results, and go on.

    Raises:
        ValueError: at the first step: `limit` or `chunksize` is below 1.
        TypeError: likewise: there is no iterable, or what is called is not async.
    """
    if not iterables:
        raise TypeError("map needs at least one iterable beside the routine")
    if limit is None:
        pool = current_pool()
        limit = LOCALLY if pool is None else PER_WORKER * max(1, pool._pool.most)
    for name, value in (("limit", limit), ("chunksize", chunksize)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: {value}")
    window = _Window(routine, iterables, limit, chunksize, go_on=return_exceptions)
    try:
        while await window.advance():
            ready = window.ready(ordered)
            while ready:
                yield _result(ready.popleft().outcome, go_on=return_exceptions)
    finally:
        await window.aclose()


def _result(outcome: Outcome, *, go_on: bool) -> Any:
    value, error = outcome
    if error is None:
        return value
    if not go_on:
        raise error
    return error


def _in_chunks(
    routine: Callable[..., Coroutine[Any, Any, Any]], known: Routine, size: int
) -> Chunks:
    """Returns a stream that calls the function of a routine with several inputs in turn."""

    async def calls(inputs: list[Args], go_on: bool) -> AsyncGenerator[Outcome, None]:
        wrapper: Any = routine
        for args in inputs:
            outcome = await _outcome(wrapper.__wool__.function(*args))
            yield outcome
            if outcome[1] is not None and not go_on:
                return

    calls.__qualname__ = known.function.__qualname__  # for messages, and for `wool ps`
    return as_routine(tags=known.tags, prefetch=size, local=known.local)(calls)


async def _outcome(call: Awaitable[Any]) -> Outcome:
    """Returns the result of a call and None, or None and its exception."""
    try:
        return await call, None
    except Exception as error:
        return None, error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # else it has raised that itself
            raise
        return None, error


class _Item:
    """An input that is out, and what it has come to."""

    __slots__ = ("outcome",)

    outcome: Outcome


class _Window:
    """The calls of a `map` that are out. Inputs are awaited while results are."""

    def __init__(
        self,
        routine: Callable[..., Coroutine[Any, Any, Any]],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        limit: int,
        size: int,
        *,
        go_on: bool,
    ) -> None:
        self._routine = routine
        known: Routine | None = getattr(routine, "__wool__", None)
        self._size, self._chunks = 1, None
        if known is not None and not known.is_stream and size > 1:
            self._size, self._chunks = size, _in_chunks(routine, known, size)
        self._arriving: AsyncGenerator[Args, None] | None = None
        self._at_hand: Iterator[Args] = iter(())
        if any(isinstance(iterable, AsyncIterable) for iterable in iterables):
            self._arriving = _zip(iterables)
        else:
            self._at_hand = zip(*cast("tuple[Iterable[Any], ...]", iterables), strict=False)
        self._limit = limit * self._size
        self._go_on = go_on  # after a call has failed
        self._exhausted = False  # no more calls are to be made
        self._next: asyncio.Task[Args] | None = None
        self._taken: list[Args] = []  # of a chunk that is not complete
        self._calls: set[asyncio.Task[Any]] = set()
        self._out: dict[_Item, None] = {}
        self._finished: deque[_Item] = deque()  # since it was last looked
        self._done: set[_Item] = set()  # all whose results are still to be yielded
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

    def ready(self, ordered: bool) -> deque[_Item]:
        """Takes the items whose results are to be yielded now."""
        finished, self._finished = self._finished, deque()
        self._done.update(finished)
        first = itertools.takewhile(self._done.__contains__, self._out)
        ready = deque(first) if ordered else finished
        for item in ready:
            del self._out[item]
        self._done.difference_update(ready)
        return ready

    async def aclose(self) -> None:
        """Cancels what is out and waits for it to end."""
        if self._next is not None:
            self._calls.add(self._next)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
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
                self._taken.append(args)
            except (StopIteration, StopAsyncIteration):
                self._exhausted = True
            if self._taken and (self._exhausted or len(self._taken) == self._size):
                inputs, self._taken = self._taken, []
                self._begin(inputs)

    def _begin(self, inputs: list[Args]) -> None:
        """Makes a call with one input, or with those of a chunk."""
        items = [_Item() for _ in inputs]
        self._out.update(dict.fromkeys(items))
        if self._chunks is not None:
            outcomes = self._chunks(inputs, self._go_on)
            call = asyncio.ensure_future(self._take(outcomes, deque(items)))
        else:
            call = asyncio.ensure_future(self._call(inputs[0]))
            call.add_done_callback(partial(self._note, items[0]))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def _call(self, args: Args) -> Awaitable[Any]:
        call: object = self._routine(*args)
        if not inspect.isawaitable(call):
            name = getattr(self._routine, "__qualname__", repr(self._routine))
            raise TypeError(
                f"map awaits what it calls, and {name}() has returned a {type(call).__name__}: "
                "give it an `async def` that does not yield"
            )
        return call

    def _note(self, item: _Item, call: asyncio.Future[Any]) -> None:
        try:
            outcome = call.result(), None
        except (Exception, asyncio.CancelledError) as error:
            outcome = None, error
        self._finish(item, outcome)

    async def _take(self, outcomes: AsyncGenerator[Outcome, None], items: deque[_Item]) -> None:
        """Ends the items of a chunk as their outcomes come."""
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    self._finish(items.popleft(), outcome)
        except Exception as error:
            while items:
                self._finish(items.popleft(), (None, error))

    def _finish(self, item: _Item, outcome: Outcome) -> None:
        item.outcome = outcome
        self._finished.append(item)
        if not self._go_on and outcome[1] is not None:
            self._exhausted = True
        self._changed.set()

    def _arrived(self, inputs: AsyncGenerator[Args, None]) -> Args | None:
        """Returns an input that has arrived, or starts waiting for it and returns None."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(inputs))
            self._next.add_done_callback(lambda _: self._changed.set())
        if not self._next.done():
            return None
        arrived, self._next = self._next, None
        return arrived.result()


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
