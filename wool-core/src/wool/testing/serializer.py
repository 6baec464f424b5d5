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
from typing import Any, NamedTuple

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


# Values to send -------------------------------------------------------------------------------


@dataclasses.dataclass(unsafe_hash=True)
class Thing:
    """An object like any other."""

    name: Any = None


class Holder:
    """Has a buffer that may stay out of band."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return Holder, (PickleBuffer(self.data),)


class Boom(Exception):
    """Raised by a test."""

    def __eq__(self, other: object) -> bool:
        return type(other) is Boom and (self.args, vars(self)) == (other.args, vars(other))

    def __hash__(self) -> int:
        return hash(self.args)


class Special:
    """The object of the hook; cannot be pickled by itself."""

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

    __slots__ = ("label",)


def labelled(one: Any) -> Any:
    """Gives something an attribute."""
    one.label = "more"
    return one


@dataclasses.dataclass
class Stateful:
    """Says itself what it is made of."""

    total: int
    cached: Any = dataclasses.field(default=len, compare=False)

    def __getstate__(self) -> object:
        return (self.total,)

    def __setstate__(self, state: tuple[int]) -> None:
        (self.total,) = state
        self.cached = None


OBJECTS: dict[str, Any] = {
    "array": array.array("d", [1.5, math.inf]),
    "counter": collections.Counter("aab"),
    "data class": Record("a", (Record("b"), Color.RED)),
    "date": dt.datetime(2026, 11, 25, 1, 2, 3, 4, dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "default dict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=3),
    "exception": labelled(Boom("message", 7)),
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
    "text": labelled(Text("hallo")),
    "uuid": uuid.UUID(int=7),
}
SAME = (None, ..., NotImplemented, len, Thing, remedy, Color.RED, dict)
DEEP: dict[str, Callable[[Any], Any]] = {
    "by itself": lambda one: one,
    "in a list": lambda one: [0, [one]],
    "in a tuple": lambda one: (0, (one, 1)),
    "in a dict": lambda one: {"a": {"b": one}},
    "as a key": lambda one: {one: 1},
    "in a set": lambda one: {one},
    "in a frozenset": lambda one: [frozenset([one])],
    "in an attribute": lambda one: Thing(Thing(one)),
    "in a deque": lambda one: collections.deque([one]),
    "in an exception": Boom,
    "in a namespace": lambda one: types.SimpleNamespace(a=one),
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

    @remedy(
        "Do as `pickle` does: `__reduce_ex__` with protocol 2 or later, which knows slots, "
        "`copyreg`, `__getstate__`, `__setstate__`."
    )
    @pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
    def test_objects(self, trip: Trip, value: Any) -> None:
        """The serializer takes what `pickle` takes, with all attributes."""
        got = trip(value)
        assert type(got) is type(value)
        assert got == value
        assert getattr(got, "label", None) == getattr(value, "label", None)

    @remedy("Send what can be imported by its module and name, and look it up at the other side.")
    def test_what_can_be_imported(self, trip: Trip) -> None:
        """Classes and functions that can be imported are themselves on the other side."""
        for got, value in zip(trip({"deep": SAME})["deep"], SAME, strict=True):
            assert got is value

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
        """An object that is there twice is one on the other side; a cycle stays one."""
        items: list[Any] = [1]
        items.append(items)
        thing = Thing({"items": items})
        thing.name["self"] = thing.name, thing
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

    @remedy(
        "Begin anew with each call: no memo, buffer or cache that outlives it, and no reference to "
        "what was serialized or rebuilt."
    )
    def test_nothing_is_kept(self, trip: Trip) -> None:
        """Each payload stands for itself, and each rebuilding makes new objects.

        Everything sent, and everything that has arrived, is freed when nobody needs it any more.
        """
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
        sent, arrived = weakref.ref(thing), weakref.ref(one)
        del thing, one
        gc.collect()
        assert sent() is None, "what was sent is kept"
        assert arrived() is None, "what has arrived is kept"

    # Buffers ----------------------------------------------------------------------------------

    @remedy(
        "Give the pickler a `buffer_callback` that returns false for buffers of 64 KiB, and put "
        "views of the value's own memory into the payload: `PickleBuffer.raw()`. Hand the "
        "payload's buffers to the unpickler as they are: `loads(…, buffers=…)`."
    )
    @pytest.mark.parametrize("size", [LARGE, 1 << 20])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_large_buffers_stay_out_of_band(self, trip: Trip, size: int, kind: Any) -> None:
        """Buffers of 64 KiB and more that support it are no part of the head.

        There is the memory of the value itself instead, and then that of the buffer received.
        """
        data = kind(pattern(size))
        payload = trip.dumps({"deep": [Holder(data)]})
        sizes = [raw(buffer).nbytes for buffer in payload.buffers]
        assert sizes == [size], f"buffers of {sizes} bytes are out of band, not one of {size}"
        assert raw(payload.head).nbytes < 2000, "the buffer is in the head"
        arrived = received(payload)
        got = trip.serializer.loads(arrived)["deep"][0].data
        compare(bytes(got), data)
        raw(arrived.buffers[0])[7] ^= 0xFF
        assert raw(got)[7] == raw(arrived.buffers[0])[7], "loads has copied the buffer"
        if kind is bytearray:
            data[7] ^= 0xF0
            assert raw(payload.buffers[0])[7] == data[7], "dumps has copied the buffer"

    @remedy(
        "Put the buffers into the payload in the order in which the head refers to them. Refuse "
        "those with gaps, or copy them; `PickleBuffer.raw()` does the former."
    )
    def test_many_buffers(self, trip: Trip) -> None:
        """Many buffers of all sizes and shapes arrive, as bytes, where they belong.

        One with gaps may be refused.
        """
        sizes = (0, 1, 1000, LARGE - 1, *(LARGE * (n % 2) + n for n in range(20)))
        parts: list[Any] = [pattern(size, number) for number, size in enumerate(sizes)]
        parts += [
            array.array("d", range(LARGE // 8)),
            memoryview(pattern(LARGE)).cast("B", (256, LARGE // 256)),
        ]
        got = [bytes(raw(one.data)) for one in trip([Holder(part) for part in parts])]
        compare(got, [bytes(raw(part)) for part in parts])
        gaps = memoryview(pattern(4 * LARGE))[::2]
        try:
            arrived = trip(Holder(gaps))
        except Exception:
            arrived = trip(Holder(gaps.tobytes()))
        compare(bytes(arrived.data), gaps.tobytes())

    @remedy(
        "Let each value have memory of its own where buffers are in the head. Leave it to pickle's "
        "protocol 5: it notes which buffers are read-only."
    )
    @pytest.mark.parametrize("size", [10, LARGE])
    def test_nothing_is_shared(self, trip: Trip, size: int) -> None:
        """A buffer is writable or not as it was, and its receiver shares it with nobody."""
        data = pattern(size)
        before = bytes(data)
        payload = trip.dumps([Holder(data), data, Holder(before)])
        one, other = trip.loads(payload), trip.loads(payload)
        written = [memoryview(holder.data).readonly for holder in (one[0], one[2])]
        assert written == [False, True], f"read-only: {written}, of a bytearray and of bytes"
        raw(one[0].data)[0] = 255
        one[1][0] = 254
        compare((bytes(other[0].data), other[1]), (before, before))
        trip.serializer.loads(payload)[1][0] = 253
        kept = bytes(data) == before
        assert kept, "the sender's own memory has changed"

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
    @pytest.mark.parametrize("wrap", DEEP.values(), ids=DEEP)
    def test_the_hook_is_asked_at_every_depth(self, trip: Trip, wrap: Callable[[Any], Any]) -> None:
        """References work wherever in a value they are."""
        assert trip(wrap(Special("deep")), special) == wrap(("stand-in", "deep"))

    @remedy(
        "Ask `reduce` for classes, functions and code too, also those that can be imported, and "
        "remember a reduced object like others: ask once, and rebuild one object. Do not ask for "
        "None, numbers, strings, bytes, lists, dicts and the like."
    )
    def test_what_the_hook_is_asked_for(self, trip: Trip) -> None:
        """The hook is asked for all kinds of objects, once for each; it costs plain values nothing.

        An object that is there twice is one object on the other side.
        """
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
        asked: list[Any] = []

        def reduce(obj: Any) -> Any:
            asked.append(names.get(id(obj), obj))
            return (stand_in, (names[id(obj)],)) if id(obj) in names else NotImplemented

        plain = [None, True, 1, 1.0, "s", b"b", bytearray(b"x"), (1,), {1: 2}, {3}, frozenset({4})]
        got, again, rest = trip([[*kinds.values()], {"again": [*kinds.values()]}, plain], reduce)
        assert got == [("stand-in", name) for name in kinds]
        assert all(one is other for one, other in zip(got, again["again"], strict=True))
        assert rest == plain
        # The function that makes a stand-in is asked for as well.
        assert [one for one in asked if one is not stand_in] == [*kinds], "asked too often"

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

    # Failures ---------------------------------------------------------------------------------

    @remedy("Let errors pass as they are: those of values, of constructors, and of `reduce`.")
    @pytest.mark.parametrize("cause", ["generator", "object", "hook", "constructor"])
    def test_what_cannot_be_pickled(self, trip: Trip, cause: str) -> None:
        """A failure at any depth is an exception; the next value is none the worse for it."""

        def reduce(obj: Any) -> Any:
            if isinstance(obj, Number):
                raise Boom("not this one")
            return (explode, ()) if cause == "constructor" and type(obj) is Special else leave(obj)

        one = {"generator": (n for n in range(3)), "hook": Number(1)}.get(cause, Special())
        for value in (one, [1, {"a": Thing((2, one))}]):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                trip.loads(trip.dumps(value, reduce))
            told = caught.value
            if cause == "object":  # which a serializer may tell in its own words
                assert isinstance(told, Boom) or "was not asked" in str(told), repr(told)
            elif cause != "generator":
                assert isinstance(told, Boom), f"{told!r} does not say what was wrong"
            assert trip([Thing(cause)]) == [Thing(cause)]

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

    @remedy(
        "Share nothing between calls: make the pickler, and all it needs, for each of them. Keep "
        "the hook with the call of dumps, not in the serializer or a global."
    )
    def test_threads(self, trip: Trip) -> None:
        """Several threads serialize at once, each with its own values, hooks and buffers.

        A hook may serialize itself, with another hook.
        """
        start = threading.Barrier(8)

        def work(number: int) -> None:
            def reduce(obj: Any) -> Any:
                time.sleep(0)  # others may go on
                if not isinstance(obj, Special):
                    return NotImplemented
                assert trip([obj], special) == [("stand-in", obj.name)]
                return stand_in, (str(number),)

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
