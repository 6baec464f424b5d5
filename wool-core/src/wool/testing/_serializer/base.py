"""What the parts of the suite share: the methods that authors override, and `Trip`."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

import pytest

from wool.abc import Buffer, Payload, Reduce, Serializer

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


class Base:
    """What authors override."""

    by_value: bool = True
    patience: float = 10.0

    def serializer(self) -> Serializer:
        """Makes the serializer; called once for each test."""
        raise NotImplementedError("override serializer() to make the serializer that is tested")

    @pytest.fixture
    def trip(self) -> Trip:
        """A serializer, and somebody else to send to."""
        return Trip(self.serializer())


class Holder:
    """Has a buffer that may stay out of band."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return Holder, (PickleBuffer(self.data),)


class Thing:
    """An object like any other."""

    def __init__(self, name: object = None) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Boom(Exception):
    """Raised by a test."""
