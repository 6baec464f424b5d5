"""The serializers `cloudpickle` and `dill`."""

from __future__ import annotations

import array
import collections
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pickle import PickleBuffer, PicklingError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wool._backends import cloudpickle as cloudpickle_backend
from wool._backends import dill as dill_backend
from wool.abc import Payload, Serializer
from wool.plugins import API

BOUNDARY = 64 * 1024
MODULES = {"cloudpickle": cloudpickle_backend, "dill": dill_backend}
SERIALIZERS: dict[str, Serializer] = {
    name: next(iter(module.wool_serializers())).factory(module.Options())
    for name, module in MODULES.items()
}
each_serializer = pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS)


def leave(obj: Any) -> Any:
    return NotImplemented


class Buffers:
    """Holds bytes and hands them to the pickler as a buffer."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffers, (PickleBuffer(self.data),)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def a_function() -> None: ...


class Set:
    def __init__(self) -> None:
        self.lines: list[str] = []


def restore(text: str) -> tuple[str, str]:
    return ("restored", text)


def set_lines(target: Set, state: list[str]) -> None:
    target.lines = state


@pytest.mark.parametrize("name", MODULES)
def test_the_record_says_who_it_is(name: str) -> None:
    (record,) = MODULES[name].wool_serializers()
    assert (record.name, record.api) == (name, API)
    assert isinstance(record.factory(record.options()), Serializer)


def test_the_modules_do_not_import_the_libraries() -> None:
    code = """
        import sys, wool._backends.cloudpickle as c, wool._backends.dill as d
        assert not {"cloudpickle", "dill"} & set(sys.modules)
        c.make(c.Options())
        assert "cloudpickle" in sys.modules and "dill" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers())
    ),
)


@each_serializer
@given(value=plain)
def test_values_come_back_equal(serializer: Serializer, value: Any) -> None:
    assert serializer.loads(serializer.dumps(value, leave)) == value


@each_serializer
@given(data=st.binary(), shape=st.sampled_from([bytes, bytearray]), repeat=st.integers(1, 50_000))
def test_buffers_come_back_equal(
    serializer: Serializer, data: bytes, shape: Callable[[bytes], Any], repeat: int
) -> None:
    data = data * repeat
    payload = serializer.dumps(Buffers(shape(data)), leave)
    assert len(payload.buffers) == (len(data) >= BOUNDARY)
    assert bytes(serializer.loads(payload).data) == data


@each_serializer
@pytest.mark.parametrize(("size", "out_of_band"), [(0, 0), (BOUNDARY - 1, 0), (BOUNDARY, 1)])
def test_only_large_buffers_stay_out_of_band(
    serializer: Serializer, size: int, out_of_band: int
) -> None:
    payload = serializer.dumps(Buffers(bytearray(size)), leave)
    assert len(payload.buffers) == out_of_band
    assert len(payload.head) < 1000 + size * (1 - out_of_band)


@each_serializer
def test_buffers_are_used_in_place_and_in_order(serializer: Serializer) -> None:
    first, second = bytearray(b"a" * BOUNDARY), bytearray(b"b" * BOUNDARY)
    payload = serializer.dumps([Buffers(first), Buffers(b"small"), Buffers(second)], leave)
    assert [bytes(buffer[:1]) for buffer in payload.buffers] == [b"a", b"b"]
    first[:1] = b"x"
    received = [bytearray(buffer) for buffer in payload.buffers]
    loaded = serializer.loads(Payload(memoryview(payload.head), received))
    assert bytes(loaded[0].data[:2]) == b"xa"
    received[1][:1] = b"y"
    assert bytes(loaded[2].data[:2]) == b"yb"


@each_serializer
@pytest.mark.parametrize("size", [100, BOUNDARY], ids=["in band", "out of band"])
@pytest.mark.parametrize("writable", [True, False])
def test_arrays_keep_whether_they_can_be_written(
    serializer: Serializer, size: int, writable: bool
) -> None:
    value = np.arange(size, dtype=np.float64)
    value.flags.writeable = writable
    payload = serializer.dumps(value, leave)
    received = Payload(payload.head, [bytearray(buffer) for buffer in payload.buffers])
    loaded = serializer.loads(received)
    assert np.array_equal(loaded, value)
    assert loaded.flags.writeable == writable


@each_serializer
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_stay_out_of_band(serializer: Serializer, order: Any) -> None:
    value = np.asarray(np.arange(50_000, dtype=np.int64).reshape(100, 500), order=order)
    payload = serializer.dumps({"array": value, "view": value.T}, leave)
    assert len(payload.head) < 1000
    loaded = serializer.loads(payload)
    assert np.array_equal(loaded["array"], value)
    assert loaded["array"].flags[f"{order}_CONTIGUOUS"]
    assert np.array_equal(loaded["view"], value.T)


@each_serializer
def test_arrays_that_are_not_contiguous_are_copied(serializer: Serializer) -> None:
    value = np.arange(100_000)[::3]
    assert np.array_equal(serializer.loads(serializer.dumps(value, leave)), value)
    objects = np.array([1, "two", None], dtype=object)
    assert serializer.loads(serializer.dumps(objects, leave)).tolist() == [1, "two", None]


@each_serializer
def test_the_pickler_refuses_buffers_that_are_not_contiguous(serializer: Serializer) -> None:
    holder = Buffers(memoryview(bytearray(BOUNDARY * 4))[::2])
    with pytest.raises((PicklingError, BufferError)):
        serializer.dumps(holder, leave)


@each_serializer
def test_other_buffers_are_values(serializer: Serializer) -> None:
    value = array.array("d", range(20_000))
    assert serializer.loads(serializer.dumps(value, leave)) == value


@each_serializer
def test_reduce_goes_first_for_instances_classes_and_functions(serializer: Serializer) -> None:
    seen: list[Any] = []

    def reduce(obj: Any) -> Any:
        seen.append(obj)
        if obj is restore:
            return NotImplemented
        if isinstance(obj, Point) or obj in (Point, a_function):
            return restore, (getattr(obj, "__name__", "a point"),)
        return NotImplemented

    point = Point(1)
    loaded = serializer.loads(serializer.dumps([point, Point, a_function, len], reduce))
    assert loaded[:3] == [restore("a point"), restore("Point"), restore("a_function")]
    assert loaded[3] is len
    assert {id(obj) for obj in (point, Point, a_function)} <= {id(obj) for obj in seen}


@each_serializer
def test_reduce_is_not_asked_for_plain_values(serializer: Serializer) -> None:
    seen: list[Any] = []

    def reduce(obj: Any) -> Any:
        seen.append(obj)
        return NotImplemented

    value: Any = [None, True, 1, 1.0, "s", b"b", bytearray(b"x"), (1,), {1: 2}, {3}, frozenset({4})]
    serializer.dumps(value, reduce)
    assert seen == []
    value = [collections.OrderedDict(a=1), 1j]
    serializer.dumps(value, reduce)
    assert any(obj is value[0] for obj in seen)


class Pair(tuple[Any, ...]):
    """Looks plain, and is not."""


@pytest.mark.parametrize(
    "value",
    [
        Point(1),
        (Point(1), {}),
        ((Point(1),), {}),
        (((Point(1),),), {}),
        ((1,), {"p": Point(1)}),
        Pair("ab"),
    ],
)
@each_serializer
def test_reduce_is_asked_for_what_is_within_what_looks_plain(
    serializer: Serializer, value: Any
) -> None:
    seen: list[Any] = []

    def reduce(obj: Any) -> Any:
        seen.append(type(obj))
        return NotImplemented

    serializer.dumps(value, reduce)
    assert {Point, Pair} & set(seen)


@each_serializer
def test_reduce_may_bring_a_state_setter(serializer: Serializer) -> None:
    def reduce(obj: Any) -> Any:
        if isinstance(obj, Set):
            return Set, (), obj.lines, None, None, set_lines
        return NotImplemented

    value = Set()
    value.lines = ["one"]
    first, second = serializer.loads(serializer.dumps([value, value], reduce))
    assert first is second
    assert first.lines == ["one"]


@each_serializer
def test_errors_of_reduce_and_of_the_library_pass(serializer: Serializer) -> None:
    def reduce(obj: Any) -> Any:
        raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        serializer.dumps(Point(1), reduce)
    with pytest.raises(TypeError):
        serializer.dumps((i for i in range(3)), leave)


@each_serializer
def test_functions_travel_by_value_with_their_globals(serializer: Serializer) -> None:
    name = "cloudpickle" if serializer is SERIALIZERS["cloudpickle"] else "dill"
    define = f"""
        import sys
        from wool._backends import {name} as backend
        from wool.abc import Payload
        serializer = backend.make(backend.Options())
        FACTOR = 3
        def times(x): return x * FACTOR
        class Box:
            def __init__(self, x): self.x = times(x)
        def boxed(x): return Box(x).x
        payload = serializer.dumps((boxed, lambda x: times(x) + 1), lambda obj: NotImplemented)
        sys.stdout.buffer.write(payload.head)
    """
    sent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(define)], check=True, capture_output=True
    )
    boxed, function = serializer.loads(Payload(sent.stdout))
    assert (boxed(5), function(5)) == (15, 16)


@each_serializer
def test_an_instance_of_main_keeps_the_class_it_came_with(serializer: Serializer) -> None:
    main = sys.modules["__main__"]
    sent = type("Sent", (), {"__module__": "__main__", "origin": "sender"})
    payload = serializer.dumps(sent(), leave)
    main.Sent = type("Sent", (), {"__module__": "__main__", "origin": "receiver"})  # type: ignore[attr-defined]
    try:
        assert serializer.loads(payload).origin == "sender"
    finally:
        del main.Sent  # type: ignore[attr-defined]


@each_serializer
def test_threads_do_not_disturb_each_other(serializer: Serializer) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        def reduce(obj: Any) -> Any:
            return (restore, (str(number),)) if isinstance(obj, Point) else NotImplemented

        start.wait()
        for _ in range(100):
            data = bytes([number]) * BOUNDARY
            value = [Point(number), Buffers(data), lambda: number]
            point, buffers, function = serializer.loads(serializer.dumps(value, reduce))
            assert point == restore(str(number))
            assert bytes(buffers.data) == data
            assert function() == number

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


def test_dill_settings_play_no_part() -> None:
    import dill

    serializer = SERIALIZERS["dill"]
    before = dict(dill.settings)
    dill.settings.update(recurse=False, byref=True, protocol=2)
    try:
        payload = serializer.dumps(Buffers(bytes(BOUNDARY)), leave)
        assert len(payload.buffers) == 1
    finally:
        dill.settings.update(before)
    assert dict(dill.settings) == before
