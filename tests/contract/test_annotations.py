"""Annotations of classes and functions that travel by value, as workers see them.

There is no `from __future__ import annotations` here: since Python 3.14 annotations without it are
evaluated when somebody asks for them.
"""

# ruff: noqa: FA100, FA102

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ForwardRef, NamedTuple, NotRequired, TypedDict

import pytest

import wool
from support.parity import NEAR

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]

lazily = pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")


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


async def test_a_class_that_names_itself() -> None:
    class Node:
        value: int
        next: "Node | None" = None

    assert await written(Node) == {"value": int, "next": "Node | None"}


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


async def test_a_typed_dict() -> None:
    class Film(TypedDict):
        name: str
        year: NotRequired[int]

    class Short(Film):
        minutes: int

    expected = {"name": str, "year": int}
    assert await hints_of(Film) == expected
    assert await hints_of(Short) == {**expected, "minutes": int}


async def test_a_named_tuple() -> None:
    class Pair(NamedTuple):
        left: int
        right: str = ""

    assert await written(Pair) == {"left": int, "right": str}


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


async def test_a_function() -> None:
    def convert(value: int, *, unit: str = "m") -> list[float]:
        return [value]

    assert await written(convert) == {"value": int, "unit": str, "return": list[float]}


async def test_names_for_type_checkers_in_quotes() -> None:
    class Account:
        balance: "Decimal"

    @wool.routine
    async def double(amount: "Decimal") -> "Decimal":
        return amount * 2

    assert await double(2) == 4
    assert await written(Account) == {"balance": "Decimal"}


@lazily
async def test_names_for_type_checkers_of_a_routine() -> None:
    @wool.routine
    async def double(amount: Decimal) -> Decimal:
        return amount * 2

    @wool.routine
    async def through_a_helper(amount: int) -> int:
        return helper(amount)

    def helper(amount: Decimal) -> Decimal:
        return amount + 1

    assert await double(2) == 4
    assert await through_a_helper(2) == 3


@lazily
async def test_names_for_type_checkers_of_a_function() -> None:
    def convert(amount: Decimal, count: int) -> Decimal:
        """Converts."""
        return amount * count

    convert.unit = "m"

    @wool.routine
    async def use(convert: Callable[..., int]) -> tuple[Any, ...]:
        return convert(2, 3), convert.__doc__, convert.__name__, convert.unit

    assert await use(convert) == (6, "Converts.", "convert", "m")
    assert await written(convert) == {"amount": "Decimal", "count": int, "return": "Decimal"}


@lazily
async def test_names_for_type_checkers_of_classes() -> None:
    @dataclass
    class Account:
        balance: Decimal
        owner: str
        other: Decimal | int = 0

        def add(self, amount: Decimal) -> Decimal:
            return self.balance + amount

    class Price(NamedTuple):
        amount: Decimal

    class Bill(TypedDict):
        amount: Decimal
        to: str

    @wool.routine
    async def look(account: Account, price: Price) -> tuple[Any, ...]:
        return account.add(price.amount), [plain(field.type) for field in fields(account)]

    assert await look(Account(1, "me"), Price(2)) == (
        3,
        ["Decimal", str, "Decimal | int"],
    )
    assert await written(Account) == {
        "balance": "Decimal",
        "owner": str,
        "other": "Decimal | int",
    }
    assert await written(Account.add) == {"amount": "Decimal", "return": "Decimal"}
    assert await written(Price) == {"amount": "Decimal"}
    assert await written(Bill) == {"amount": "Decimal", "to": str}


@lazily
async def test_a_class_that_names_itself_without_quotes() -> None:
    class Node:
        value: int
        next: Node | None = None  # noqa: F821

    @wool.routine
    async def names_itself(cls: type[Node]) -> bool:
        return typing.get_type_hints(cls)["next"] == cls | None

    assert await names_itself(Node)


@lazily
async def test_a_function_that_calls_itself() -> None:
    def factorial(n: typing.Missing) -> Decimal:
        return n * factorial(n - 1) if n else 1

    @wool.routine
    async def call(function: Callable[[int], int]) -> int:
        return function(4)

    assert await call(factorial) == 24


@lazily
async def test_a_function_that_can_be_imported() -> None:
    """It is the one of its module, not a copy."""
    from contract import annotated_lazily
    from contract.annotated_lazily import convert

    @wool.routine
    async def same(function: object) -> tuple[bool, bool]:
        found = sys.modules[annotated_lazily.__name__].convert
        return function is found, convert is found

    assert await same(convert) == (True, True)
