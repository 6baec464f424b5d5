"""Values: equal, of the same types, shared and recursive where they were."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import math
import pathlib
import re
import types
import uuid
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wool.testing._kit import compare, remedy
from wool.testing._serializer.base import Base, Boom, Thing, Trip

SETTINGS = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Color(enum.Enum):
    """An enumeration."""

    RED = 1
    BLUE = "b"


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: object


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A frozen data class with slots."""

    name: str
    parts: tuple[Any, ...] = ()


class Text(str):
    """A subclass of a plain type, with an attribute."""

    __slots__ = ("language",)


class Stateful:
    """Says itself what it is made of."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.cached: object = object()

    def __getstate__(self) -> object:
        return (self.total,)

    def __setstate__(self, state: tuple[int]) -> None:
        (self.total,) = state
        self.cached = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stateful) and self.total == other.total

    __hash__ = None  # type: ignore[assignment]


OBJECTS: dict[str, Any] = {
    "array": array.array("d", [1.5, math.inf]),
    "counter": collections.Counter("aab"),
    "data class": Record("a", (Record("b"), Color.RED)),
    "date": dt.datetime(2026, 11, 25, 1, 2, 3, 4, dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "default dict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=3),
    "enumeration": Color.BLUE,
    "fraction": fractions.Fraction(1, 3),
    "large integer": 7**5000,
    "named tuple": Point(1, Point(2, None)),
    "namespace": types.SimpleNamespace(a=1),
    "object with state": Stateful(7),
    "ordered": collections.OrderedDict(b=1, a=2),
    "path": pathlib.PurePosixPath("/a/b"),
    "pattern": re.compile("a+", re.IGNORECASE),
    "range": range(1, 10, 3),
    "surrogates": "\ud800 \udcff \0",
    "uuid": uuid.UUID(int=7),
}
SAME: dict[str, Any] = {
    "None": None,
    "Ellipsis": ...,
    "NotImplemented": NotImplemented,
    "a built-in": len,
    "a class": Thing,
    "a function": remedy,
    "a member": Color.RED,
    "a method": math.sqrt,
    "a type": dict,
}

plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
        | st.frozensets(st.integers(), max_size=5)
        | st.sets(st.text(max_size=5), max_size=5)
    ),
    max_leaves=20,
)


def alike(one: Any, other: Any) -> bool:
    """Whether plain values have the same types and parts; also where these are not equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return alike([*one.items()], [*other.items()])  # type: ignore[arg-type]
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))  # type: ignore[arg-type]
    return repr(one) == repr(other) or one == other


class Values(Base):
    """Part of `SerializerSuite`."""

    @remedy("Keep the type and the value of everything: tuples are no lists, keys no strings.")
    @SETTINGS
    @given(value=plain)
    def test_plain_values(self, trip: Trip, value: Any) -> None:
        """Plain values come back equal and of the same types, at any depth; none is changed."""
        before = copy.deepcopy(value)
        got = trip(value)
        assert alike(before, value), f"dumps has made {value!r} of {before!r}"
        assert alike(value, got), f"{got!r} in place of {value!r}"

    @remedy("Do as `pickle` does: `__reduce_ex__`, `copyreg`, `__getstate__`, `__setstate__`.")
    @pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
    def test_objects(self, trip: Trip, value: Any) -> None:
        """What `pickle` can take, the serializer can."""
        got = trip(value)
        assert type(got) is type(value)
        assert got == value

    @remedy("Send what can be imported by its module and name, and look it up at the other side.")
    @pytest.mark.parametrize("value", SAME.values(), ids=SAME)
    def test_what_can_be_imported(self, trip: Trip, value: Any) -> None:
        """Classes and functions that can be imported are themselves on the other side."""
        assert trip(value) is value
        assert trip({"deep": [value]})["deep"][0] is value

    @remedy("Call `object.__reduce_ex__` with protocol 2 or later, which knows slots.")
    def test_attributes_of_subclasses(self, trip: Trip) -> None:
        """An instance of a subclass of a plain type keeps class and attributes."""
        text = Text("hallo")
        text.language = "de"
        got = trip([text])[0]
        assert (type(got), got, got.language) == (Text, "hallo", "de")

    @remedy("Keep exceptions as `pickle` does, with `args` and `__dict__`.")
    def test_exceptions(self, trip: Trip) -> None:
        """An exception is a value like others."""
        error = Boom("message", 7)
        error.extra = {"more": 1}  # type: ignore[attr-defined]
        got = trip(error)
        assert (type(got), got.args, got.extra) == (Boom, ("message", 7), {"more": 1})

    @remedy("Remember each object by its identity for as long as one call of dumps lasts.")
    def test_what_is_the_same_stays_the_same(self, trip: Trip) -> None:
        """An object that is there twice is one object on the other side."""
        thing, items = Thing("shared"), [1]
        value = [thing, {"again": thing, "items": items}, (items, Record("r", (thing,)))]
        first, second, third = trip(value)
        assert first is second["again"], "one object has become two"
        assert first is third[1].parts[0]
        assert second["items"] is third[0]
        first.name = "changed"
        assert second["again"].name == "changed"

    @remedy("Note an object before its contents are written, as `pickle` does with its memo.")
    def test_recursive_values(self, trip: Trip) -> None:
        """What contains itself does so on the other side."""
        items: list[Any] = [1]
        items.append(items)
        names: dict[str, Any] = {"items": items}
        names["self"] = names
        thing = Thing()
        thing.name = (thing, names)
        got = trip([thing, items])
        assert got[0].name[0] is got[0]
        assert got[0].name[1]["self"] is got[0].name[1]
        assert got[0].name[1]["items"] is got[1]
        assert got[1][1] is got[1]

    @remedy("Do not quadruple your work with size: append to a buffer, do not join strings.")
    def test_huge_values(self, trip: Trip) -> None:
        """Size is no obstacle."""
        large = {
            "bytes": bytes(range(256)) * (1 << 16),
            "text": "ä€" * (1 << 20),
            "numbers": list(range(200_000)),
            "things": [Thing(number) for number in range(5_000)],
        }
        compare(list(trip(large).items()), list(large.items()))

    @remedy("Let RecursionError out, or need no recursion; never crash or cut off.")
    def test_deep_values(self, trip: Trip) -> None:
        """Depth works, or is an error; what is not too deep works."""
        value: Any = "bottom"
        for _ in range(60):
            value = [value]
        assert trip(value) == value
        for _ in range(100_000):
            value = [value]
        try:
            got = trip(value)
        except Exception:
            assert trip(Thing("still works")) == Thing("still works")
        else:
            for _ in range(100_060):
                (got,) = got
            assert got == "bottom"
        finally:
            while isinstance(value, list):
                value = value[0]  # pyright: ignore[reportUnknownVariableType]

    @remedy("Begin anew with each call: no memo, buffer or cache that outlives it.")
    def test_payloads_share_nothing(self, trip: Trip) -> None:
        """Each payload stands for itself, and each rebuilding makes new objects."""
        thing = Thing([1])
        before = trip.dumps([thing, thing])
        thing.name = [2]
        after = trip.dumps([thing, thing])
        for payload, name in ((after, [2]), (before, [1]), (after, [2])):
            first, second = trip.loads(payload)
            assert (first.name, second is first) == (name, True)
            assert first is not thing, "loads gave the sender's own object"
            first.name.append("mine")
        direct = trip.serializer.loads(before)[0], trip.serializer.loads(before)[0]
        assert direct[0] is not direct[1], "two calls of loads gave the same object"
        assert direct[0].name is not thing.name, "loads gave the sender's own object"

    @remedy("Keep no reference to what was serialized or rebuilt.")
    def test_nothing_is_kept(self, trip: Trip) -> None:
        """What has been sent, and what has arrived, is freed when nobody needs it any more."""
        thing = Thing("large")
        got = trip([thing])[0]
        watched = weakref.ref(thing), weakref.ref(got)
        del thing, got
        gc.collect()
        assert watched[0]() is None, "what was sent is kept"
        assert watched[1]() is None, "what has arrived is kept"

    @remedy("Pickle functions and classes that cannot be imported by value, as cloudpickle does.")
    def test_functions_by_value(self, trip: Trip) -> None:
        """Lambdas, closures, and classes of functions travel by value."""
        if not self.by_value:
            pytest.skip("by_value is False")
        factor = 3

        def times(number: int) -> int:
            return factor * number

        more: Callable[[int], int] = lambda number: times(number) + 1  # noqa: E731

        class Local(Thing):
            def double(self) -> object:
                return (self.name, self.name)

        value: list[Any] = [times, more, Local("n"), Local]
        got = trip(value)
        assert got[0] is not times
        assert (got[0](5), got[1](5), got[2].double()) == (15, 16, ("n", "n"))
        assert type(got[2]) is got[3]
        assert trip(functools.partial(times, 2))() == 6
