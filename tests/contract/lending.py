"""Routines for test_references.py: they use what lives elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import wool
from support.parity import Journal


@wool.routine
async def drain(source: Any) -> list[Any]:
    return [value async for value in source]


@wool.routine
async def take(source: Any, n: int) -> list[Any]:
    return [await anext(source) for _ in range(n)]


@wool.routine
async def break_after(source: Any, n: int) -> int:
    async for _ in source:
        n -= 1
        if not n:
            break
    return n


@wool.routine
async def close(source: Any) -> None:
    await source.aclose()


@wool.routine
async def drive(generator: Any, *steps: tuple[str, Any]) -> list[Any]:
    """Yields the outcome of each step: what was yielded, or the exception."""
    outcomes: list[Any] = []
    for operation, *args in steps:
        try:
            outcomes.append(await getattr(generator, operation)(*args))
        except BaseException as error:
            outcomes.append(error)
    return outcomes


@wool.routine
async def same(value: Any) -> Any:
    return value


@wool.routine
async def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await function(*args, **kwargs)


@wool.routine
async def forward(source: Any) -> Any:
    """Pass it on to another worker."""
    return await drain(source)


@wool.routine
async def doubled(source: Any) -> AsyncIterator[Any]:
    async with aclosing(source):
        async for value in source:
            yield value * 2


@wool.routine
async def patient(source: Any, journal: Journal) -> Any:
    try:
        async for value in source:
            journal.write(f"got {value}")
    except BaseException as error:
        journal.write(type(error).__name__)
        raise
    finally:
        journal.write("consumer ends")


@wool.routine
async def make_counter(journal: Journal, n: int = 10) -> Any:
    generator = counting(journal, n)
    assert await anext(generator) == 0
    return generator


@wool.routine
async def make_counters(journal: Journal, n: int) -> AsyncIterator[Any]:
    for _ in range(n):
        generator = counting(journal, 3)
        await anext(generator)
        yield generator


async def counting(journal: Journal, n: int = 10) -> AsyncIterator[int]:
    try:
        for i in range(n):
            yield i
    finally:
        journal.write("counting ends")


class Tape:
    """An async iterator that is no generator."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)
        self.asked = 0

    def __aiter__(self) -> Tape:
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.values:
            raise StopAsyncIteration
        return self.values.pop(0)


class Ledger:
    """An object with async methods and others."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    async def note(self, entry: Any, *, loudly: bool = False) -> int:
        await asyncio.sleep(0)
        self.entries.append(f"{entry}!" if loudly else entry)
        return len(self.entries)

    async def pages(self, n: int) -> AsyncIterator[Any]:
        for i in range(n):
            yield i, len(self.entries)

    async def __aenter__(self) -> Ledger:
        self.entries.append("opened")
        return self

    async def __aexit__(self, *info: Any) -> None:
        self.entries.append("closed")

    def sync(self) -> None: ...


class Feed:
    """An async iterable: each iteration begins anew."""

    def __init__(self, n: int) -> None:
        self.n = n

    async def __aiter__(self) -> AsyncIterator[int]:
        for i in range(self.n):
            yield i
