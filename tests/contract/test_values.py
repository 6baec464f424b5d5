"""Arguments and results: the same value, of the same class, with the same structure."""

from __future__ import annotations

import array
import asyncio
import collections
import datetime as dt
import decimal
import enum
import fractions
import math
import operator
import pathlib
import re
import types
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import wool
from contract.routines import add, apply, collect, echo
from contract.types import (
    MISSING,
    Box,
    Colour,
    FrozenPoint,
    KeywordOnly,
    Level,
    Pair,
    Permission,
    Point,
    Slots,
)
from support.parity import NEAR, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "zero": 0,
    "big": 2**4096 + 1,
    "negative": -(10**100),
    "float": 0.1,
    "infinity": -math.inf,
    "complex": 1 - 2j,
    "empty string": "",
    "string": "zażółć \x00 \U0001f9f6",
    "surrogate": "\ud800",
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"abc"),
    "tuple": (1, (2, (3,)), ()),
    "list": [1, [2, [3]], []],
    "dict": {"a": 1, 2: "b", (3, 4): None, None: {}},
    "set": {1, 2, 3},
    "frozenset": frozenset({"a", frozenset()}),
    "range": range(1, 10, 3),
    "slice": slice(1, None, 2),
    "datetime": dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc),
    "timedelta": dt.timedelta(days=-1, microseconds=3),
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=7),
    "path": pathlib.Path("/tmp") / "x",
    "pattern": re.compile("a+", re.IGNORECASE),
    "ordered dict": collections.OrderedDict([("b", 1), ("a", 2)]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2, 3], maxlen=3),
    "counter": collections.Counter("abca"),
    "namespace": types.SimpleNamespace(a=1, b=[2]),
    "array": array.array("d", [1.5, 2.5]),
    "dataclass": Point(1, tags=["a"]),
    "frozen dataclass": FrozenPoint(1, 2),
    "namedtuple": Pair(1, Pair("x")),
    "slots": Slots(1, [2]),
    "generic": Box([1]),
    "generic alias": list[int],
    "attrgetter": operator.attrgetter("x").__class__,
}


@pytest.mark.parametrize("name", VALUES)
async def test_values_return_equal(name: str) -> None:
    value = VALUES[name]
    result = await echo(value)
    assert result == value
    assert type(result) is type(value)
    [also] = [v async for v in wool.map(echo, [value])]
    assert also == value


def named(value: Any) -> str:
    """Names a case the same in every process."""
    kind, name = type(value).__name__, getattr(value, "name", "")
    return f"{kind} {getattr(value, '__qualname__', name)}"


@pytest.mark.parametrize(
    "value",
    [None, True, Ellipsis, NotImplemented, Colour.RED, Level.HIGH, Permission.READ,
     Permission.READ | Permission.WRITE, MISSING, Point, Colour, int, len, math, echo, print,
     math.sqrt, KeywordOnly, ValueError, Point.__init__, asyncio.sleep, type(None)],
    ids=named,
)  # fmt: skip
async def test_what_is_known_by_name_keeps_its_identity(value: Any) -> None:
    assert await echo(value) is value
    assert (await echo([value]))[0] is value


async def test_nan_and_signed_zero() -> None:
    assert math.isnan(await echo(math.nan))
    assert math.copysign(1, await echo(-0.0)) == -1


async def test_five_megabytes() -> None:
    data = bytes(range(256)) * (5 * 4096)
    assert await echo(data) == data
    assert await apply(len, data) == len(data)
    text = "ż" * 1_000_000
    assert await echo(text) == text


@pytest.mark.parametrize(
    "value",
    [
        np.arange(10),
        np.zeros((0, 3)),
        np.array(5.0),
        np.arange(12, dtype="f4").reshape(3, 4),
        np.arange(12).reshape(3, 4).T,
        np.arange(24)[::3],
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array([1, "x", None], dtype=object),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2024-02-29"], dtype="M8[D]"),
        np.asfortranarray(np.ones((3, 4))),
    ],
    ids=lambda v: f"{v.dtype}{v.shape}{v.flags.c_contiguous}",
)
async def test_arrays(value: np.ndarray[Any, Any]) -> None:
    result = await echo(value)
    assert type(result) is np.ndarray
    assert (result.dtype, result.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(result, value)
    np.testing.assert_array_equal(
        (await collect(given=[value]))[1]["given"][0], value
    )  # fmt: skip


async def test_a_result_array_can_be_written() -> None:
    result = await echo(np.zeros(100_000))
    result[0] = 1
    assert result.sum() == 1
    data = await echo(bytearray(100_000))
    data[0] = 1
    assert data[:2] == b"\x01\x00"


async def test_a_routine_can_write_its_arrays() -> None:
    @wool.routine
    async def fill(values: np.ndarray[Any, Any], data: bytearray) -> Any:
        values += 1
        data[0] = 7
        return values.sum(), data[0]

    assert await fill(np.zeros(100_000), bytearray(100_000)) == (100_000, 7)


# Structure


async def test_shared_parts_stay_shared() -> None:
    part = [1]
    result = await echo({"a": part, "b": part, "c": [part]})
    assert result["a"] is result["b"] is result["c"][0]
    args, kwargs = await collect(part, [part], again=part)
    assert args[0] is args[1][0] is kwargs["again"]


async def test_a_large_argument_passed_twice_is_one() -> None:
    large = bytes(2 << 20)
    assert await apply(lambda a, b: a is b, large, large)
    assert await apply(lambda a, b: a is b, large, b=large)


async def test_recursive_structures() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    result = await echo(loop)
    assert result[0] == 1 and result[1] is result

    @dataclass
    class Node:
        name: str
        parent: Node | None = None
        children: list[Node] = field(default_factory=list)

    root = Node("root")
    root.children = [Node("a", root), Node("b", root)]
    copy = await echo(root)
    assert type(copy) is Node
    assert [child.name for child in copy.children] == ["a", "b"]
    assert all(child.parent is copy for child in copy.children)


# Classes made where no worker can import them


async def test_instances_of_classes_made_in_a_closure() -> None:
    @dataclass
    class Local:
        n: int

        def twice(self) -> int:
            return 2 * self.n

    class LocalPair(NamedTuple):
        a: int
        b: str = "b"

    class LocalColour(enum.Enum):
        RED = 1
        BLUE = 2

    value = [Local(3), LocalPair(1), LocalColour.BLUE]
    result = await echo(value)
    assert result == value
    assert [type(v) for v in result] == [Local, LocalPair, LocalColour]
    assert result[2] is LocalColour.BLUE
    assert await echo(Local) is Local
    assert await echo(LocalColour) is LocalColour

    @wool.routine
    async def make(n: int) -> Any:
        return Local(n), LocalPair(n), LocalColour(n), isinstance(value[0], Local)

    made, pair, colour, recognised = await make(2)
    assert type(made) is Local and made.twice() == 4
    assert type(pair) is LocalPair and colour is LocalColour.BLUE and recognised


async def test_what_comes_back_does_not_change_the_callers_class() -> None:
    class Versioned:
        limit = 1

        def method(self) -> str:
            return "original"

    original = Versioned.__dict__["method"]
    assert type(await echo(Versioned())) is Versioned
    assert Versioned.__dict__["method"] is original

    def patched(self: Any) -> str:
        return "patched"

    Versioned.method = patched  # type: ignore[method-assign]
    Versioned.limit = 2
    result = await echo(Versioned())
    assert type(result) is Versioned
    assert Versioned.__dict__["method"] is patched
    assert (Versioned().method(), Versioned.limit) == ("patched", 2)


async def test_a_class_made_by_a_routine() -> None:
    @wool.routine
    async def make() -> Any:
        class Made:
            def __init__(self, n: int) -> None:
                self.n = n

            def __eq__(self, other: object) -> bool:
                return type(other) is type(self) and vars(other) == vars(self)

            __hash__ = None  # type: ignore[assignment]

        return Made, Made(1)

    made_class, instance = await make()
    assert type(instance) is made_class
    assert instance == made_class(1)
    assert type(await echo(instance)) is made_class


# Exceptions as values


async def test_gathered_exceptions_are_values() -> None:
    @wool.routine
    async def attempts() -> list[Any]:
        async def bad(n: int) -> None:
            raise ValueError(n)

        return await asyncio.gather(bad(1), add(1), bad(2), return_exceptions=True)

    first, second, third = await attempts()
    assert (first.args, second, third.args) == ((1,), 3, (2,))


async def test_an_open_file(place: Place, tmp_path: pathlib.Path) -> None:
    """It stays where it is, and the error says what to do; a copy would be another file."""
    path = tmp_path / "file"
    path.write_text("text")
    with path.open() as file:
        if place.remote:
            with pytest.raises(wool.SerializationError, match="the open file .*pass its path"):
                await echo(file)
        else:
            assert await echo(file) is file
    assert await echo(path) == path
