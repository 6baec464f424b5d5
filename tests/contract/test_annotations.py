"""Annotations of classes and functions that travel by value, as workers see them.

There is no `from __future__ import annotations` here: since Python 3.14 annotations without it are
evaluated when somebody asks for them.
"""

# ruff: noqa: FA100, FA102

import inspect
import sys
import typing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ForwardRef

import pytest

import wool
from support.parity import NEAR

if TYPE_CHECKING:
    pass

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


@wool.routine
async def hints_of(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(thing)


@wool.routine
async def written(thing: Any) -> dict[str, Any]:
    """Returns annotations; of what only type checkers know, the name."""
    if sys.version_info < (3, 14):
        return inspect.get_annotations(thing)
    import annotationlib

    found = annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    if not isinstance(value, ForwardRef):
        return value
    import annotationlib

    return value.evaluate(format=annotationlib.Format.STRING)


async def test_a_plain_class() -> None:
    class Base:
        x: int

    class Derived(Base):
        y: list[str]

    assert await written(Base) == {"x": int}
    assert await written(Derived) == {"y": list[str]}
    assert await hints_of(Derived) == {"x": int, "y": list[str]}


async def test_a_dataclass() -> None:
    @dataclass
    class Point:
        x: int
        y: float = 0.0

    @wool.routine
    async def look(point: Point) -> tuple[Any, ...]:
        @dataclass
        class Point3D(type(point)):
            z: int = 0

        return [field.type for field in fields(point)], Point3D(1, 2.0, 3).z, Point.__init__

    types, z, init = await look(Point(1))
    assert types == [int, float]
    assert z == 3
    assert await written(Point) == {"x": int, "y": float}
    assert await hints_of(init) == {"x": int, "y": float, "return": type(None)}


async def test_a_pydantic_model() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):
        number: int
        tags: list[str] = []

    @wool.routine
    async def made(number: str) -> object:
        return Order.model_validate({"number": number})

    order = await made("4")
    assert type(order) is Order and order.number == 4

    @wool.routine
    async def check(order: Order) -> tuple[Any, ...]:
        class Rush(type(order)):
            hours: int = 1

        return order.number + 1, Rush(number="2").model_dump()

    assert await check(Order(number=1)) == (2, {"number": 2, "tags": [], "hours": 1})
    assert await written(Order) == {"number": int, "tags": list[str]}
