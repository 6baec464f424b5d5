"""Whatever arrives, a machine refuses it with `ProtocolError` and takes no memory for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unit.protocolkit import (
    CALLING,
    WINDOW,
    content,
    frames,
    instances,
    joined,
    machine,
    opening,
    receive,
    returned,
    value,
)
from wool._protocol import frames as f
from wool._protocol.connection import Machine
from wool.exceptions import ProtocolError

HUGE = 2**40


def prefixed(header: bytes) -> bytes:
    return len(header).to_bytes(f.PREFIX, "little") + header


def busy(dialler: bool = True) -> Machine:
    """Returns a machine with calls of both sides in all states and payloads half arrived."""
    connection = machine(dialler=dialler)
    mine, theirs = (1, 2) if dialler else (2, 1)
    plan: list[tuple[str, Any, bytes]] = [
        ("send", opening(mine), b""),
        ("send", opening(mine + 2, stream=True), b""),
        ("receive", value(mine + 2), b""),
        ("send", opening(mine + 4, [3 * WINDOW]), bytes(3 * WINDOW)),
        ("send", opening(mine + 6), b""),
        ("receive", returned(mine + 6, [2 * WINDOW]), b""),
        ("send", f.Need(mine + 8, [b"k"]), b""),
        ("receive", opening(theirs), b""),
        ("receive", opening(theirs + 2, [2 * WINDOW], stream=True), b""),
        ("receive", f.Chunk(theirs + 2), bytes(100)),
        ("receive", opening(theirs + 4, stream=True), b""),
        ("send", value(theirs + 4, [2 * WINDOW]), bytes(2 * WINDOW)),
        ("receive", opening(theirs + 6, stream=True, prefetch=2), b""),
        ("send", returned(theirs + 6), b""),
    ]
    for what, frame, payload in plan:
        if what == "send":
            connection.send(frame, [payload] if payload else [])
        else:
            receive(connection, f.encode(frame) + payload)
    return connection


def survives(connection: Machine, message: bytes) -> None:
    """Feeds a message; the machine may take it or refuse it, but nothing else."""
    try:
        receive(connection, message)
    except ProtocolError:
        return
    for answer in connection.outgoing(1 << 20):
        f.decode_call(joined(answer))


@contextmanager
def taking_less_than(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=4) | st.dictionaries(
        st.text(max_size=3), children, max_size=2
    )


objects = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    nested,
    max_leaves=12,
)


@given(st.binary(max_size=300), st.booleans())
@example(b"", True)
@example(bytes(4), True)
@example(b"\xff" * 8, True)
def test_any_bytes(message: bytes, dialler: bool) -> None:
    survives(busy(dialler), message)


@given(frames(CALLING), st.data())
def test_fields_of_another_type(frame: Any, data: st.DataObject) -> None:
    fields = msgspec.msgpack.decode(f.encode(frame)[f.PREFIX :])
    place = data.draw(st.integers(0, len(fields) - 1))
    fields[place] = data.draw(objects)
    survives(busy(), prefixed(msgspec.msgpack.encode(fields)))


@settings(max_examples=300)
@given(
    frames(CALLING),
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(["set", "insert", "delete"]),
)
def test_valid_messages_with_changed_bytes(
    frame: Any, payload: bytes, changes: list[tuple[int, int]], how: str
) -> None:
    header = bytearray(f.encode(frame)[f.PREFIX :])
    for position, byte in changes:
        position %= len(header) or 1
        match how:
            case "insert":
                header.insert(position, byte)
            case "delete":
                del header[position : position + 1]
            case _:
                header[position : position + 1] = bytes([byte])
    survives(busy(), prefixed(bytes(header)) + payload)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(CALLING)
            .filter(lambda kind: "call" in kind.__struct_fields__)
            .flatmap(
                lambda kind: st.tuples(instances(kind), st.integers(1, 14)).map(
                    lambda pair: msgspec.structs.replace(pair[0], call=pair[1])
                )
            ),
            st.builds(f.GiveBack, st.lists(st.integers(1, 14), max_size=4), st.just(0)),
        ),
        max_size=30,
    ),
    st.booleans(),
    st.booleans(),
)
def test_valid_frames_at_the_wrong_time(sent: list[Any], dialler: bool, fitting: bool) -> None:
    """In any state, for any call, in either direction."""
    connection = busy(dialler)
    for frame in sent:
        if fitting and hasattr(frame, "sizes"):
            frame = msgspec.structs.replace(frame, sizes=[3], codes=[])
        survives(connection, f.encode(frame) + (b"abc" if fitting else b""))


@given(frames(CALLING), st.binary(max_size=10))
def test_cut_short_at_every_byte(frame: Any, payload: bytes) -> None:
    """The rest is refused, as long as some of the header is missing."""
    message = f.encode(frame)
    for end in range(len(message)):
        with pytest.raises(ProtocolError):
            receive(busy(), message[:end])
        # The prefix may have been made to fit.
        if end >= f.PREFIX:
            with pytest.raises(ProtocolError):
                receive(busy(), prefixed(message[f.PREFIX : end]) + payload)


# Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        b"\x93\x17\xdd\xff\xff\xff\xff\x01",  # an array of 2**32 ids
        b"\x93\x0e\x01\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff\x17",
        b"\x93\x18\x01\xdb\xff\xff\xff\xff",  # a text of 2**32 bytes
        b"\x94\x0c\x01\x00\xc6\xff\xff\xff\xff",  # bytes
        b"\x93\x1a\x00\xdf\xff\xff\xff\xff",  # a map that no frame has
        b"\x93\x1a\x00\xc9\xff\xff\xff\xff\x01",  # an extension
        b"\x93\x1a\x00" + b"\x91" * 100_000,
        b"\x93\x1a\x00" + b"\x81\x91" * 100_000,
    ],
)
@pytest.mark.parametrize("decode", [f.decode_call, f.decode_handshake])
def test_lengths_that_are_only_claimed(header: bytes, decode: Callable[[bytes], Any]) -> None:
    message = prefixed(header)
    with taking_less_than(100_000), pytest.raises(ProtocolError):
        decode(message)


def test_calls_that_announce_much_and_send_little() -> None:
    connection = machine(dialler=True)
    with taking_less_than(5_000_000):
        for ident in range(2, 2002, 2):
            receive(connection, f.encode(opening(ident, [HUGE, HUGE])))
            for _ in range(3):
                receive(connection, f.encode(f.Chunk(ident)) + b"x")
            connection.outgoing(0)


def test_what_is_refused_leaves_nothing_behind() -> None:
    """A call rejected for its size, however often, and the chunks that still come."""
    connection = machine(dialler=True)
    chunk = content([1000])[0]
    with taking_less_than(1_000_000):
        for ident in range(2, 4002, 2):
            receive(connection, f.encode(opening(ident, [2**62])))
            for _ in range(3):
                assert receive(connection, f.encode(f.Chunk(ident)) + chunk) == []
            assert len(connection.outgoing(0)) == 1
    assert not connection._calls


def test_frames_about_closed_calls_leave_nothing_behind() -> None:
    connection = machine(dialler=True)
    receive(connection, f.encode(opening(2)))
    connection.send(returned(2))
    connection.outgoing(0)
    with taking_less_than(100_000):
        for _ in range(2000):
            for frame in (f.Cancel(2), f.Resume(2, [HUGE], step=0), f.Chunk(2), f.Credit(2, HUGE)):
                assert receive(connection, f.encode(frame)) == []
    assert not connection.has_outgoing


def test_a_payload_of_a_terabyte_is_dropped_as_it_comes() -> None:
    connection = machine(dialler=True)
    connection.send(opening(1))
    receive(connection, f.encode(returned(1, [2**62])))
    chunk = content([100_000])[0]
    with taking_less_than(1_000_000):
        for _ in range(100):
            assert receive(connection, f.encode(f.Chunk(1)) + chunk) == []
            connection.outgoing(0)
