"""Stages of pipelines, for the parity suite; workers import them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import wool
from support.parity import Journal
from support.waiting import forever


@wool.routine
async def numbers(n: int, *, start: int = 0, journal: Journal | None = None) -> AsyncIterator[int]:
    if journal is not None:
        journal.write("numbers begins")
    try:
        for i in range(start, start + n):
            yield i
    finally:
        if journal is not None:
            journal.write("numbers ends")


@wool.routine
async def add_up(source: AsyncIterator[int]) -> int:
    return sum([value async for value in source])


@wool.routine
async def squares(source: AsyncIterator[int]) -> AsyncIterator[int]:
    async for value in source:
        yield value * value


@wool.routine
async def staged(name: str, source: Any, journal: Journal) -> AsyncIterator[int]:
    """A stage that closes its source, as tidy ones do, and tells what it does."""
    journal.write(f"{name} begins")
    try:
        async with aclosing(source):
            async for value in source:
                yield value
    finally:
        journal.write(f"{name} ends")


@wool.routine
async def stalling_source(journal: Journal) -> AsyncIterator[int]:
    try:
        yield 1
        journal.write("stalled")
        await forever()
    finally:
        journal.write("source ends")


@wool.routine
async def failing_source() -> AsyncIterator[int]:
    yield 1
    raise LookupError("no more")


@wool.routine
async def drain(source: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in source]


@wool.routine
async def once(journal: Journal, value: Any = 1) -> Any:
    journal.write("once")
    return value


@wool.routine
async def resolve(value: Any) -> Any:
    return await value


@wool.routine
async def resolve_all(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [await value for value in some] for name, some in values.items()}


@wool.routine
async def ignore(*args: Any) -> int:
    return len(args)


@wool.routine
async def pass_on(call: Any) -> Any:
    """Neither begins nor looks at what it is given."""
    return call


@wool.routine
async def make_numbers(n: int) -> Any:
    return numbers(n)


@wool.routine
async def make_streams(n: int) -> AsyncIterator[Any]:
    for i in range(n):
        yield numbers(i)


@wool.routine
async def merging() -> Any:
    """Adds up each stream that is sent in."""
    total = 0
    while True:
        source = yield total
        if source is None:
            return
        total += sum([value async for value in source])


class Shop:
    """Methods as stages."""

    prefix = "shop"

    def __init__(self, stock: int) -> None:
        self.stock = stock

    @wool.routine
    async def items(self, factor: int = 1) -> AsyncIterator[int]:
        for i in range(self.stock):
            yield i * factor

    @classmethod
    @wool.routine
    async def name(cls, suffix: str) -> str:
        return f"{cls.prefix}-{suffix}"

    @staticmethod
    @wool.routine
    async def price(value: int) -> int:
        return value * 10
