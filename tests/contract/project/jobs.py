"""Routines."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import typing
from collections.abc import AsyncIterator
from typing import Any

import contract.project.kinds as k
import wool
from contract.project.inner import state
from contract.project.kinds import Box, Broken, Colour, Pair, Point, Worse

from . import streams


@wool.routine
async def echo(*values: Any) -> Any:
    return values


@wool.routine
async def check() -> list[Any]:
    """Compare what a routine finds with what is here."""
    return [
        k.plus(1, 2),
        k.cached(1),
        k.square(3),
        k.kind(Point(1)),
        k.kind(1),
        k.UserId(3),
        Point(2, 1, scale=3).sum,
        [field.name for field in dataclasses.fields(Point)],
        typing.get_type_hints(Point)["tags"],
        k.LOGGER.name,
        k.LOCK.locked(),
        Colour("blue").name,
        (k.Mask.A | k.Mask.B).value,
        issubclass(Box, k.Shape),
        __name__,
        __package__,
        Box.Lid.__qualname__,
        sys.modules[Point.__module__].Point is Point,
    ]


@wool.routine
async def same(point: Any, colour: Any, pair: Any, box: Any, frozen: Any) -> list[bool]:
    from contract.project import kinds

    return [
        type(point) is kinds.Point,
        colour is kinds.Colour.RED,
        type(pair) is Pair and pair._replace(left=5) == Pair(5, 2),
        isinstance(box, k.Shape) and type(box.item) is Point,
        type(frozen) is kinds.Frozen,
    ]


@wool.routine
async def catch(error: Exception) -> str:
    try:
        raise error
    except Worse:
        return "worse"
    except Broken:
        return "broken"


@wool.routine
async def fail(code: int) -> None:
    try:
        raise Broken(code=1)
    except Broken as cause:
        raise Worse(code=code) from cause


@wool.routine
async def put(name: str, value: int) -> None:
    state.put(name, value)


@wool.routine
async def get() -> tuple[dict[str, int], int]:
    from .inner.state import SHELF, total

    return dict(SHELF), total


@wool.routine
async def clear() -> None:
    state.clear()


@wool.routine
async def shift(point: Point) -> Point:
    from .inner import late

    return late.shift(point)


@wool.routine
async def by_name(name: str) -> Any:
    return importlib.import_module(f"contract.project.inner.{name}").ANSWER


@wool.routine
async def missing(inside: bool) -> None:
    if inside:
        import contract.project.nothing  # type: ignore[import-not-found]  # noqa: F401
    else:
        import contract_nothing  # type: ignore[import-not-found]  # noqa: F401


@wool.routine
async def optional() -> str:
    try:
        import contract_nothing  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        return "without"
    return "with"


@wool.routine
async def add_all(n: int) -> int:
    return sum([value async for value in streams.numbers(n)])


@wool.routine
async def consume(source: AsyncIterator[int]) -> int:
    return sum([value async for value in source])


@wool.routine
async def nested(depth: int, seen: list[int]) -> list[int]:
    seen = [*seen, os.getpid()]
    return seen if depth == 0 else await streams.again(depth - 1, seen)


@wool.routine
async def made(n: int) -> Any:
    """A class and a function that only the worker knows."""

    @dataclasses.dataclass
    class Made(Point):
        more: int = 0

        def all(self) -> int:
            return self.sum + self.more

    return Made(n, n, more=n), lambda x: k.plus(x, n)


@wool.routine
async def apply(function: Any, *args: Any) -> Any:
    return function(*args)


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    @wool.routine
    async def plus(self, n: int) -> Counter:
        return Counter(self.value + n)

    @wool.routine
    @classmethod
    async def make(cls, start: int) -> Counter:
        return cls(start)

    @staticmethod
    @wool.routine
    async def count(n: int) -> AsyncIterator[int]:
        for value in range(n):
            yield value
