"""The hook `reduce`: how Wool sends references, code and exceptions its own way."""

from __future__ import annotations

import collections
import types
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from wool.abc import Reduce
from wool.testing._kit import remedy
from wool.testing._serializer.base import Base, Boom, Thing, Trip, leave


@dataclass
class Box:
    """Has one attribute."""

    content: Any


class Number(int):
    """A subclass of a plain type."""


class Special:
    """What the hook is about; cannot be pickled by itself."""

    def __init__(self, name: str = "it") -> None:
        self.name = name

    def __reduce__(self) -> Any:
        raise Boom("the hook was not asked first")


def stand_in(name: str) -> tuple[str, str]:
    """Makes what arrives in place of something special."""
    return "stand-in", name


def special(obj: Any) -> Any:
    """The hook: something special is replaced."""
    return (stand_in, (obj.name,)) if isinstance(obj, Special) else NotImplemented


def a_function() -> None:
    """One that can be imported."""


async def a_coroutine() -> None:
    """One that cannot be pickled once it is called."""


async def a_stream() -> AsyncGenerator[int]:
    """One that cannot be pickled once it is called."""
    yield 1


def set_lines(thing: Any, lines: list[str]) -> None:
    """Takes a state in its own way."""
    thing.name = " ".join(lines)


DEEP: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "by itself": (lambda one: one, lambda got: got),
    "in a list": (lambda one: [0, [one]], lambda got: got[1][0]),
    "in a tuple": (lambda one: (0, (one, 1)), lambda got: got[1][0]),
    "in a dict": (lambda one: {"a": {"b": one}}, lambda got: got["a"]["b"]),
    "as a key": (lambda one: {one: 1}, lambda got: next(iter(got))),
    "in a set": (lambda one: {one}, lambda got: next(iter(got))),
    "in a frozenset": (lambda one: [frozenset([one])], lambda got: next(iter(got[0]))),
    "in an attribute": (lambda one: Box(Box(one)), lambda got: got.content.content),
    "in a deque": (lambda one: collections.deque([one]), lambda got: got[0]),
    "in an ordered dict": (
        lambda one: collections.OrderedDict[str, Any](a=one),
        lambda got: got["a"],
    ),
    "in an exception": (Boom, lambda got: got.args[0]),
    "in arguments": (lambda one: ((1, one), {"key": [one]}), lambda got: got[1]["key"][0]),
    "in a namespace": (lambda one: types.SimpleNamespace(a=one), lambda got: got.a),
    "very deep": (
        lambda one: [[[[Box({"a": (Box([one]),)})]]]],
        lambda got: got[0][0][0][0].content["a"][0].content[0],
    ),
}


class Reducing(Base):
    """Part of `SerializerSuite`."""

    @remedy("Ask `reduce` for each object in the value, before its own `__reduce__` and copyreg.")
    @pytest.mark.parametrize(("wrap", "find"), DEEP.values(), ids=DEEP)
    def test_the_hook_is_asked_at_every_depth(
        self, trip: Trip, wrap: Callable[[Any], Any], find: Callable[[Any], Any]
    ) -> None:
        """References work wherever in a value they are."""
        assert find(trip(wrap(Special("deep")), special)) == ("stand-in", "deep")

    @remedy("Ask `reduce` for classes, functions and code too, also those that can be imported.")
    def test_the_hook_is_asked_for_all_kinds(self, trip: Trip) -> None:
        """Instances, classes, functions, code, calls, exceptions, subclasses of plain types."""
        call, stream = a_coroutine(), a_stream()
        kinds: dict[str, Any] = {
            "instance": Thing("t"),
            "class": Thing,
            "function": a_function,
            "code": a_function.__code__,
            "coroutine": call,
            "async generator": stream,
            "exception": Boom("b"),
            "number": Number(7),
            "lambda": lambda: None,
        }
        call.close()
        names = {id(obj): name for name, obj in kinds.items()}

        def reduce(obj: Any) -> Any:
            return (stand_in, (names[id(obj)],)) if id(obj) in names else NotImplemented

        got = trip(list(kinds.values()), reduce)
        assert got == [("stand-in", name) for name in kinds]

    @remedy("Do not call `reduce` for None, numbers, strings, bytes, lists, dicts and the like.")
    def test_the_hook_is_not_asked_for_plain_values(self, trip: Trip) -> None:
        """It costs nothing for plain values."""
        asked: list[Any] = []

        def reduce(obj: Any) -> Any:
            asked.append(obj)
            return NotImplemented

        value = [None, True, 1, 1.0, "s", b"b", bytearray(b"x"), (1,), {1: 2}, {3}, frozenset({4})]
        assert trip(value, reduce) == value
        assert asked == [], "the hook was asked for plain values"
        thing = Thing("asked for")
        trip([thing], reduce)
        assert any(obj is thing for obj in asked)

    @remedy("Remember a reduced object like others: ask once, and rebuild one object.")
    def test_the_hook_is_asked_once_for_an_object(self, trip: Trip) -> None:
        """An object that is there twice is reduced once, and is one object on the other side."""
        asked: list[Any] = []

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Special):
                asked.append(obj)
                return Box, (obj.name,)
            return NotImplemented

        one = Special("one")
        got = trip([one, {"again": one}, Special("other")], reduce)
        assert [box.content for box in (got[0], got[1]["again"], got[2])] == ["one", "one", "other"]
        assert got[0] is got[1]["again"]
        assert len(asked) == 2, f"the hook was asked {len(asked)} times for two objects"

    @remedy("Pickle what `reduce` returns like the rest of the value, with the hook.")
    def test_the_hook_is_asked_for_what_it_returns(self, trip: Trip) -> None:
        """A reduction may hold objects that have to be reduced as well."""

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Special) and obj.name == "outer":
                return Box, ([Special("inner")],), {"content": (Special("state"),)}
            return special(obj)

        assert trip([Special("outer")], reduce)[0].content == (("stand-in", "state"),)

    @remedy("Accept all that `object.__reduce_ex__` may return, up to six items.")
    def test_reductions_of_every_length(self, trip: Trip) -> None:
        """State, items of lists and dicts, and a function that sets the state."""
        things = {
            2: (Thing, ("two",)),
            3: (Thing, (), {"name": "three"}),
            4: (list[Any], (), None, iter([1, Special("item")])),
            5: (dict[str, Any], (), None, None, iter([("key", Special("value"))])),
            6: (Thing, (), ["all", "six"], None, None, set_lines),
        }
        objects = {size: Thing(size) for size in things}

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Thing) and obj.name in things:
                return things[obj.name]  # type: ignore[index]
            return special(obj)

        got = trip(list(objects.values()), reduce)
        assert [got[index].name for index in (0, 1, 4)] == ["two", "three", "all six"]
        assert got[2] == [1, ("stand-in", "item")]
        assert got[3] == {"key": ("stand-in", "value")}

    @remedy("Go on as without a hook where it returns NotImplemented.")
    def test_the_hook_may_leave_it(self, trip: Trip) -> None:
        """What the hook leaves is pickled as ever."""
        value = [Thing("a"), Number(3), Thing, len, Box({"b": Thing("c")})]
        assert trip(value, leave) == value

    @remedy("Let the errors of `reduce` pass as they are; they say what is wrong.")
    def test_errors_of_the_hook(self, trip: Trip) -> None:
        """What the hook raises gets out, and does no harm."""

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Thing):
                raise Boom("not this one")
            return NotImplemented

        with pytest.raises(Boom, match="not this one"):
            trip.dumps([1, Box(Thing())], reduce)
        assert trip(Box(Thing())) == Box(Thing())

    @remedy("Keep the hook with the call of dumps, not in the serializer or a global.")
    def test_each_call_has_its_hook(self, trip: Trip) -> None:
        """Hooks of different calls do not mix, also where one serializes within another."""
        inner: list[Any] = []

        def numbered(number: int) -> Reduce:
            def reduce(obj: Any) -> Any:
                if not isinstance(obj, Special):
                    return NotImplemented
                if number == 1:
                    inner.append(trip([Special("inner"), obj], numbered(2)))
                return stand_in, (f"{obj.name} {number}",)

            return reduce

        got = trip([Special("a"), Special("b")], numbered(1))
        assert got == [("stand-in", "a 1"), ("stand-in", "b 1")]
        assert inner[1] == [("stand-in", "inner 2"), ("stand-in", "b 2")]
