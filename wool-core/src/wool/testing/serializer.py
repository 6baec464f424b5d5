"""The conformance kit of serializers."""

from __future__ import annotations

import array
import asyncio
import base64
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
import threading
import time
import types
import uuid
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pickle import PickleBuffer
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wool.abc import Buffer, Payload, Reduce, Serializer
from wool.testing._kit import Process, compare, remedy, say

__all__ = ["SerializerSuite"]

LARGE = 64 * 1024
"""Bytes from which buffers stay out of band."""


def leave(obj: object) -> Any:
    """Reduces nothing."""
    return NotImplemented


class Trip:
    """Values on their way to somebody else, who shares no memory with us."""

    def __init__(self, serializer: Serializer) -> None:
        self.serializer = serializer

    def dumps(self, value: object, reduce: Reduce = leave) -> Payload:
        """Serializes, and checks that what comes out can be sent."""
        payload = self.serializer.dumps(value, reduce)
        assert isinstance(payload, Payload), f"dumps returned a {type(payload)}"
        for part in (payload.head, *payload.buffers):
            assert isinstance(part, (bytes, bytearray, memoryview)), f"a {type(part)} in a payload"
            assert memoryview(part).contiguous, "a buffer in a payload is not contiguous"
        return payload

    def loads(self, payload: Payload) -> Any:
        """Rebuilds from a copy, as somebody who has received it."""
        return self.serializer.loads(received(payload))

    def __call__(self, value: object, reduce: Reduce = leave) -> Any:
        """There and back."""
        return self.loads(self.dumps(value, reduce))


def received(payload: Payload) -> Payload:
    """A copy of a payload, as it comes out of a connection: all buffers can be written to."""
    buffers: list[Buffer] = [bytearray(raw(buffer)) for buffer in payload.buffers]
    return Payload(memoryview(bytes(raw(payload.head))), buffers)


def raw(buffer: Buffer) -> memoryview:
    """The bytes of a buffer."""
    return memoryview(buffer).cast("B")


def pattern(size: int, start: int = 0) -> bytearray:
    """Bytes that differ."""
    return bytearray((start + number) % 251 for number in range(size))


def line_of(payload: Payload) -> str:
    """A payload as a line of text."""
    parts = (payload.head, *payload.buffers)
    return " ".join(base64.b64encode(raw(part)).decode() for part in parts)


def payload_of(line: str) -> Payload:
    """The payload of a line of text."""
    head, *buffers = map(base64.b64decode, line.split(" "))
    return Payload(head, buffers)


# What is sent ---------------------------------------------------------------------------------


class Thing:
    """An object like any other."""

    def __init__(self, name: object = None) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Holder:
    """Has a buffer that may stay out of band."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return Holder, (PickleBuffer(self.data),)


@dataclasses.dataclass
class Box:
    """Has one attribute."""

    content: Any


class Boom(Exception):
    """Raised by a test."""


class Special:
    """What the hook is about; cannot be pickled by itself."""

    def __init__(self, name: str = "it") -> None:
        self.name = name

    def __reduce__(self) -> Any:
        raise Boom("the hook was not asked first")


def special(obj: Any) -> Any:
    """The hook: something special is replaced."""
    return (stand_in, (obj.name,)) if isinstance(obj, Special) else NotImplemented


def stand_in(name: str) -> tuple[str, str]:
    """Makes what arrives in place of something special."""
    return "stand-in", name


class RaisesLater:
    """Can be pickled, and fails when it is rebuilt."""

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    """Fails."""
    raise Boom("cannot be rebuilt")


def set_lines(thing: Any, lines: list[str]) -> None:
    """Takes a state in its own way."""
    thing.name = " ".join(lines)


async def a_coroutine() -> None:
    """One that cannot be pickled once it is called."""


async def a_stream() -> AsyncGenerator[int]:
    """One that cannot be pickled once it is called."""
    yield 1


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


class Number(int):
    """A subclass of a plain type."""


class Text(str):
    """A subclass of a plain type, with an attribute."""

    __slots__ = ("language",)


class Stateful:
    """Says itself what it is made of."""

    def __init__(self, total: int) -> None:
        self.total: int = total
        self.cached: object = object()

    def __getstate__(self) -> object:
        return (self.total,)

    def __setstate__(self, state: tuple[int]) -> None:
        (self.total,) = state
        self.cached = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stateful) and self.total == other.total

    __hash__: ClassVar[None] = None  # type: ignore[assignment]


OBJECTS: dict[str, Any] = {
    "array": array.array("d", [1.5, math.inf]),
    "counter": collections.Counter("aab"),
    "data class": Record("a", (Record("b"), Color.RED)),
    "date": dt.datetime(2026, 11, 25, 1, 2, 3, 4, dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "default dict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=3),
    "fraction": fractions.Fraction(1, 3),
    "large integer": 7**5000,
    "named tuple": Point(1, Point(2, None)),
    "namespace": types.SimpleNamespace(a=1),
    "number": Number(3),
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
    "a type": dict,
}
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
    "in an exception": (Boom, lambda got: got.args[0]),
    "in a namespace": (lambda one: types.SimpleNamespace(a=one), lambda got: got.a),
}

SETTINGS = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.differing_executors,  # one suite is subclassed several times
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
PLAIN: st.SearchStrategy[Any] = st.recursive(
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


@pytest.mark.filterwarnings("error")
class SerializerSuite:
    """Tests what `wool.abc` promises of serializers; subclass it in a test module.

    Override `serializer`. Another process makes its own one.

    Attributes:
        by_value: whether functions and classes travel that the other side cannot import.
        patience: seconds that another process may take before it counts as hanging.
    """

    by_value: bool = True
    patience: float = 10.0

    def serializer(self) -> Serializer:
        """Makes the serializer; called once for each test."""
        raise NotImplementedError("override serializer() to make the serializer that is tested")

    @pytest.fixture
    def trip(self) -> Trip:
        """A serializer, and somebody else to send to."""
        return Trip(self.serializer())

    # Values -----------------------------------------------------------------------------------

    @remedy("Keep the type and the value of everything: tuples are no lists, keys no strings.")
    @SETTINGS
    @given(value=PLAIN)
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

    @remedy("Call `object.__reduce_ex__` with protocol 2 or later, which knows slots.")
    def test_attributes(self, trip: Trip) -> None:
        """Instances of subclasses of plain types, and exceptions, keep their attributes."""
        text, error = Text("hallo"), Boom("message", 7)
        text.language = "de"
        error.extra = {"more": 1}  # type: ignore[attr-defined]
        got, caught = trip([text, error])
        assert (type(got), got, got.language) == (Text, "hallo", "de")
        assert (type(caught), caught.args, caught.extra) == (Boom, ("message", 7), {"more": 1})

    @remedy("Send what can be imported by its module and name, and look it up at the other side.")
    @pytest.mark.parametrize("value", SAME.values(), ids=SAME)
    def test_what_can_be_imported(self, trip: Trip, value: Any) -> None:
        """Classes and functions that can be imported are themselves on the other side."""
        assert trip({"deep": [value]})["deep"][0] is value

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

    @remedy("Note each object before its contents are written, for as long as dumps lasts.")
    def test_identity(self, trip: Trip) -> None:
        """What is there twice is one object on the other side; what contains itself still does."""
        items: list[Any] = [1]
        items.append(items)
        thing = Thing({"items": items})
        thing.name["self"] = thing.name, thing  # type: ignore[index]
        first, second, record = trip([thing, {"again": thing}, Record("r", (items,))])
        assert second["again"] is first, "one object has become two"
        assert record.parts[0] is first.name["items"], "one object has become two"
        assert first.name["items"][1] is first.name["items"], "a list does not contain itself"
        assert first.name["self"][0] is first.name, "a dict does not contain itself"
        assert first.name["self"][1] is first, "an object does not contain itself"

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
        one, other = trip.serializer.loads(before)[0], trip.serializer.loads(before)[0]
        assert one is not other, "two calls of loads gave the same object"

    @remedy("Keep no reference to what was serialized or rebuilt.")
    def test_nothing_is_kept(self, trip: Trip) -> None:
        """What has been sent, and what has arrived, is freed when nobody needs it any more."""
        thing = Thing("large")
        got = trip([thing])[0]
        sent, arrived = weakref.ref(thing), weakref.ref(got)
        del thing, got
        gc.collect()
        assert sent() is None, "what was sent is kept"
        assert arrived() is None, "what has arrived is kept"

    # Buffers ----------------------------------------------------------------------------------

    @remedy("Give the pickler a `buffer_callback` that returns false for buffers of 64 KiB.")
    @pytest.mark.parametrize("size", [LARGE, 1 << 20])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_large_buffers_stay_out_of_band(self, trip: Trip, size: int, kind: Any) -> None:
        """Buffers of 64 KiB and more that support it are no part of the head."""
        data = pattern(size)
        payload = trip.dumps({"deep": [Holder(kind(data))]})
        sizes = [raw(buffer).nbytes for buffer in payload.buffers]
        assert sizes == [size], f"buffers of {sizes} bytes are out of band, not one of {size}"
        assert raw(payload.head).nbytes < 2000, "the buffer is in the head"
        compare(bytes(trip.loads(payload)["deep"][0].data), data)

    @remedy("Put the buffers into the payload in the order in which the head refers to them.")
    def test_many_buffers(self, trip: Trip) -> None:
        """Many buffers, large and small, arrive where they belong."""
        sizes = (0, 1, 1000, LARGE - 1, *(LARGE * (n % 2) + n for n in range(20)))
        parts = [pattern(size, number) for number, size in enumerate(sizes)]
        compare([bytes(one.data) for one in trip([Holder(part) for part in parts])], parts)

    @remedy(
        "Put views of the value's own memory into the payload: `PickleBuffer.raw()`. Hand the "
        "payload's buffers to the unpickler as they are: `loads(…, buffers=…)`."
    )
    def test_nothing_is_copied(self, trip: Trip) -> None:
        """Out of band there is the memory of the value itself, then the buffer received."""
        data = pattern(LARGE)
        payload = trip.serializer.dumps(Holder(data), leave)
        data[7] ^= 0xFF
        assert raw(payload.buffers[0])[7] == data[7], "dumps has copied the buffer"
        payload = received(payload)
        got = trip.serializer.loads(payload)
        raw(payload.buffers[0])[7] ^= 0xFF
        assert raw(got.data)[7] == raw(payload.buffers[0])[7], "loads has copied the buffer"

    @remedy("Let each value have memory of its own where buffers are in the head.")
    @pytest.mark.parametrize("size", [10, LARGE])
    def test_nothing_is_shared(self, trip: Trip, size: int) -> None:
        """Changes to what has arrived are seen by nobody else."""
        data = pattern(size)
        before = bytes(data)
        payload = trip.dumps([Holder(data), data])
        one, other = trip.loads(payload), trip.loads(payload)
        raw(one[0].data)[0] = 255
        one[1][0] = 254
        compare((bytes(other[0].data), other[1]), (before, before))
        again = trip.serializer.loads(payload)
        again[1][0] = 253
        kept = bytes(data) == before
        assert kept, "the sender's own memory has changed"

    @remedy("Leave it to pickle's protocol 5: it notes which buffers are read-only.")
    @pytest.mark.parametrize("size", [10, LARGE])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_whether_they_can_be_written(self, trip: Trip, size: int, kind: Any) -> None:
        """What could be written to still can; what could not, cannot."""
        got = memoryview(trip(Holder(kind(pattern(size)))).data)
        assert got.readonly == (kind is bytes), f"read-only: {got.readonly}, from {kind.__name__}"

    @remedy(
        "Refuse buffers with gaps, or copy them; `PickleBuffer.raw()` does the former. Of other "
        "shapes only the memory is promised."
    )
    def test_shapes(self, trip: Trip) -> None:
        """A buffer arrives as its bytes, whatever its shape; one with gaps may be refused."""
        numbers = array.array("d", range(LARGE // 8))
        shaped = memoryview(pattern(LARGE)).cast("B", (256, LARGE // 256))
        got = trip([Holder(numbers), Holder(shaped), numbers])
        compare(bytes(raw(got[0].data)), numbers.tobytes())
        compare(bytes(raw(got[1].data)), shaped.tobytes())
        compare(got[2], numbers)
        gaps = memoryview(pattern(4 * LARGE))[::2]
        try:
            arrived = trip(Holder(gaps))
        except Exception:
            arrived = trip(Holder(gaps.tobytes()))
        compare(bytes(arrived.data), gaps.tobytes())

    @remedy("Use protocol 5 for arrays as well: `obj.__reduce_ex__(5)`.")
    @pytest.mark.parametrize("writable", [True, False])
    def test_numpy_arrays(self, trip: Trip, writable: bool) -> None:
        """Arrays of numpy arrive as they are, and large ones out of band."""
        numpy: Any = pytest.importorskip("numpy")
        array = numpy.arange(30_000, dtype="float64").reshape(100, 300)
        array.flags.writeable = writable
        sent = {"a": array, "view": array.T, "gaps": array[:, ::7]}
        payload = trip.dumps(sent)
        assert raw(payload.head).nbytes < 100_000
        got = trip.loads(payload)
        for name, value in sent.items():
            assert got[name].dtype == value.dtype
            assert numpy.array_equal(got[name], value)
        assert got["a"].flags.writeable == writable

    # The hook: how Wool sends references, code and exceptions its own way ---------------------

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
        call = a_coroutine()
        kinds: dict[str, Any] = {
            "instance": Thing("t"),
            "class": Thing,
            "function": explode,
            "code": explode.__code__,
            "coroutine": call,
            "async generator": a_stream(),
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

    @remedy(
        "Accept all that `object.__reduce_ex__` may return, up to six items, and pickle it like "
        "the rest of the value, with the hook."
    )
    def test_reductions(self, trip: Trip) -> None:
        """A reduction has a state, items, or a setter, with objects to be reduced in them."""
        things = {
            2: (Thing, (Special("argument"),)),
            3: (Thing, (), {"name": Special("state")}),
            4: (list[Any], (), None, iter([1, Special("item")])),
            5: (dict[str, Any], (), None, None, iter([("key", Special("value"))])),
            6: (Thing, (), ["all", "six"], None, None, set_lines),
        }

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Thing) and obj.name in things:
                return things[obj.name]  # type: ignore[index]
            return special(obj)

        got = trip([Thing(size) for size in things], reduce)
        assert [got[0].name, got[1].name] == [("stand-in", "argument"), ("stand-in", "state")]
        assert got[2] == [1, ("stand-in", "item")]
        assert got[3] == {"key": ("stand-in", "value")}
        assert got[4].name == "all six"

    @remedy("Keep the hook with the call of dumps, not in the serializer or a global.")
    def test_a_hook_that_serializes(self, trip: Trip) -> None:
        """A hook may serialize, with another hook: the two do not mix."""
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

    # What goes wrong --------------------------------------------------------------------------

    @remedy("Let errors pass as they are: those of values, and those of `reduce`.")
    @pytest.mark.parametrize("cause", ["generator", "object that raises", "hook that raises"])
    def test_what_cannot_be_pickled(self, trip: Trip, cause: str) -> None:
        """Is an exception, at any depth; the next value is none the worse for it."""

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Number):
                raise Boom("not this one")
            return NotImplemented

        one: Any = Number(1)
        if cause != "hook that raises":
            one = Special() if cause == "object that raises" else (n for n in range(3))
        for value in (one, [1, {"a": Thing((2, one))}]):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                trip.dumps(value, reduce)
            if cause == "hook that raises":
                assert isinstance(caught.value, Boom)
            elif cause == "object that raises":
                known = isinstance(caught.value, Boom) or "was not asked" in str(caught.value)
                assert known, f"{caught.value!r} does not say what was wrong"
            assert trip([Thing(cause)]) == [Thing(cause)]

    @remedy("Let errors of constructors pass; they are the user's.")
    def test_what_cannot_be_rebuilt(self, trip: Trip) -> None:
        """What a value raises as it is rebuilt gets out, and does no harm."""
        payload = trip.dumps([Thing(1), RaisesLater()])
        with pytest.raises(Boom, match="cannot be rebuilt"):
            trip.loads(payload)
        assert trip([Thing(2)]) == [Thing(2)]

    @remedy(
        "Read no further than the payload goes, and raise an Exception if that is too early, or "
        "if the head refers to a buffer that is not there."
    )
    def test_payloads_that_are_cut_off(self, trip: Trip) -> None:
        """A payload that is cut off anywhere is an exception, never a value."""
        value = [Thing("first"), {"text": "x" * 300}, Holder(bytes(LARGE)), Holder(bytes(LARGE))]
        payload = trip.dumps(value)
        head = bytes(raw(payload.head))
        cut = [Payload(head, payload.buffers[:count]) for count in (0, 1)]
        sizes = {*range(0, len(head), max(1, len(head) // 100)), len(head) - 1}
        cut += [Payload(head[:size], payload.buffers) for size in sorted(sizes)]
        for part in cut:
            try:
                got = trip.loads(part)
            except Exception:
                continue
            told = f"{len(part.head)} bytes of {len(head)} and {len(part.buffers)} buffers of 2"
            pytest.fail(f"{told} make a value: {got!r:.100}")
        assert trip.loads(payload)[:2] == value[:2]

    @remedy("Share nothing between calls: make the pickler, and all it needs, for each of them.")
    def test_threads(self, trip: Trip) -> None:
        """Several threads serialize at once, each with its own values, hooks and buffers."""
        start = threading.Barrier(8)

        def work(number: int) -> None:
            def reduce(obj: Any) -> Any:
                time.sleep(0)  # others may go on
                return (stand_in, (str(number),)) if isinstance(obj, Special) else NotImplemented

            start.wait(self.patience)
            for turn in range(20):
                data = bytes([number, turn]) * (LARGE // 2)
                value = [Special(), Thing([number, turn]), Holder(data), [Special(), Special()]]
                got = trip(value, reduce)
                mine = ("stand-in", str(number))
                wanted = [mine, Thing([number, turn]), data, [mine] * 2]
                compare([*got[:2], bytes(got[2].data), got[3]], wanted)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

    @remedy("Put all into the payload that rebuilding takes; nothing may stay in this process.")
    def test_another_process(self, trip: Trip) -> None:
        """Another process rebuilds what this one has sent, and the other way round."""
        factor = 3
        triple: Callable[[int], int] = lambda number: factor * number  # noqa: E731
        function: Callable[[int], int] = triple if self.by_value else abs
        payload = trip.dumps([Thing("there"), Holder(bytes(LARGE)), [1.5, "ü", None], function])

        async def send() -> Payload:
            async with Process(self) as process:
                process.say(line_of(payload))
                return payload_of(await process.line())

        got = trip.serializer.loads(asyncio.run(send()))
        assert got == [Thing("there"), LARGE, [1.5, "ü", None], function(7)]

    async def play(self, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
        """In the other process: rebuilds a value, uses it, and sends back what came of that."""
        serializer = self.serializer()
        thing, holder, items, function = serializer.loads(payload_of(await told.get()))
        answer = [thing, len(holder.data), items, function(7)]
        say(line_of(serializer.dumps(answer, leave)))
        await told.get()
