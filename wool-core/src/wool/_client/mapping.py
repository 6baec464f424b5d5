"""`map`: a routine over many inputs, with a bound on how many calls are out at once."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
)
from typing import Any, TypeVar

from wool._client.current import current_pool

T = TypeVar("T")
PER_WORKER = 16
LOCALLY = 16


async def map(
    routine: Callable[..., Coroutine[Any, Any, T]],
    *iterables: Iterable[Any] | AsyncIterable[Any],
    limit: int | None = None,
    ordered: bool = True,
) -> AsyncGenerator[T, None]:
    """Calls a routine with the items of iterables, and yields the results.

    Items are taken as calls are made, so an endless iterable will do. Leaving the loop early, with
    `aclose` or by an exception, cancels the calls that are out and waits for them to end; the
    first call that fails does the same and its exception is raised.

    Args:
        routine: an async function; a routine runs on the workers.
        iterables: as for the built-in `map`, it stops with the shortest; may be asynchronous.
        limit: calls out at once; by default a few for each worker.
        ordered: yield results in the order of the inputs, or as they come.

    Raises:
        ValueError: `limit` is below 1.
        TypeError: there is no iterable.
    """
    if not iterables:
        raise TypeError("map needs at least one iterable beside the routine")
    if limit is None:
        pool = current_pool()
        limit = LOCALLY if pool is None else PER_WORKER * max(1, len(pool.workers))
    if limit < 1:
        raise ValueError(f"limit must be at least 1: {limit}")
    inputs = _zip(iterables)
    out: dict[asyncio.Task[T], None] = {}
    try:
        exhausted = False
        while True:
            while not exhausted and len(out) < limit:
                try:
                    args = await anext(inputs)
                except StopAsyncIteration:
                    exhausted = True
                else:
                    out[asyncio.ensure_future(routine(*args))] = None
            if not out:
                return
            for task in await _ready(out, ordered):
                del out[task]
                yield task.result()
    finally:
        for task in out:
            task.cancel()
        if out:
            await asyncio.gather(*out, return_exceptions=True)
        await inputs.aclose()


async def _ready(out: dict[asyncio.Task[T], None], ordered: bool) -> list[asyncio.Task[T]]:
    """Waits for the next result, or for any."""
    if ordered:
        first = next(iter(out))
        await asyncio.wait([first, *out], return_when=asyncio.FIRST_COMPLETED)
        for task in out:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return [task]  # a failure need not wait for its turn
        if not first.done():
            await asyncio.wait([first])
        return [first]
    done, _ = await asyncio.wait(out, return_when=asyncio.FIRST_COMPLETED)
    return list(done)


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
