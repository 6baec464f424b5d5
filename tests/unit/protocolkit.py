"""Frames by the dozen, and two machines with a wire between them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from wool._protocol import frames as f
from wool._protocol.connection import Event, Machine

CHUNK = 1024
WINDOW = 4096
HANDSHAKING: tuple[type[f.Frame], ...] = get_args(f.Handshaking)
CALLING: tuple[type[f.Frame], ...] = get_args(f.Calling)
FRAMES = sorted(HANDSHAKING + CALLING, key=lambda kind: kind.__struct_config__.tag)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy for the values of a field's type, as msgspec describes it."""
    match kind:
        case msgspec.inspect.IntType():
            return st.integers(kind.ge or 0, 2**62 if kind.le is None else kind.le)
        case msgspec.inspect.FloatType():
            return st.floats(kind.ge, allow_nan=False)
        case msgspec.inspect.StrType():
            return st.text(max_size=20)
        case msgspec.inspect.BytesType():
            return st.binary(max_size=20)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType():
            return st.one_of([values(each) for each in kind.types])
        case msgspec.inspect.ListType():
            return st.lists(values(kind.item_type), max_size=3)
        case msgspec.inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=3).map(tuple)
        case msgspec.inspect.StructType():
            return instances(kind.cls)
    raise NotImplementedError(kind)


def instances(struct: type[Any]) -> st.SearchStrategy[Any]:
    """Returns a strategy for the instances of a struct."""
    described = msgspec.inspect.type_info(struct)
    assert isinstance(described, msgspec.inspect.StructType)
    return st.builds(struct, **{field.name: values(field.type) for field in described.fields})


def frames(kinds: Iterable[type[f.Frame]] = FRAMES) -> st.SearchStrategy[Any]:
    return st.one_of([instances(kind) for kind in kinds])


def receive(machine: Machine, message: bytes | memoryview) -> list[Event]:
    """Has a machine take one message."""
    return machine.receive(*f.decode_call(message))


def content(sizes: Sequence[int], seed: int = 0) -> list[bytes]:
    """Returns segments of these sizes that are unlike each other."""
    source = random.Random(seed)
    return [source.randbytes(size) for size in sizes]


def joined(message: Sequence[f.Buffer]) -> bytes:
    """Returns a message as it is on the wire."""
    return b"".join(message)


def opening(call: int, sizes: Sequence[int] = (), **others: Any) -> f.Open:
    return f.Open(call=call, sizes=list(sizes), **{"routine": "m:f"} | others)


def value(call: int, sizes: Sequence[int] = ()) -> f.Value:
    return f.Value(call, list(sizes))


def returned(call: int, sizes: Sequence[int] = ()) -> f.Return:
    return f.Return(call, list(sizes))


def raised(call: int, sizes: Sequence[int] = ()) -> f.Raise:
    return f.Raise(call, list(sizes))


def machine(*, dialler: bool, window: int = WINDOW, chunk: int = CHUNK) -> Machine:
    return Machine(dialler=dialler, peer_window=window, peer_chunk=chunk, window=window)


class Pair:
    """Two machines; what one sends reaches the other when `pump` is called."""

    def __init__(self, window: int = WINDOW, chunk: int = CHUNK) -> None:
        self.dialler = machine(dialler=True, window=window, chunk=chunk)
        self.acceptor = machine(dialler=False, window=window, chunk=chunk)

    def deliver(self, sender: Machine, limit: int = 1 << 30) -> list[Any]:
        """Moves what one machine has to say to the other, once; returns the events."""
        receiver = self.acceptor if sender is self.dialler else self.dialler
        events: list[Any] = []
        for message in sender.outgoing(limit):
            events += receive(receiver, joined(message))
        return events

    def pump(self) -> tuple[list[Any], list[Any]]:
        """Moves everything; returns the events at the dialler and at the acceptor."""
        ours: list[Any] = []
        theirs: list[Any] = []
        while self.dialler.has_outgoing or self.acceptor.has_outgoing:
            theirs += self.deliver(self.dialler)
            ours += self.deliver(self.acceptor)
        return ours, theirs

    def assert_idle(self) -> None:
        for side in (self.dialler, self.acceptor):
            assert not side._calls
            assert not side._outbound
            assert not side.has_outgoing
