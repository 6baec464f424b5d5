"""The common part of serializers that speak pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pickle import PickleBuffer
from typing import Any

from wool.abc import Payload, Reduce, Serializer

PROTOCOL = 5
"""The pickle protocol that knows out-of-band buffers; every supported Python has it."""

OUT_OF_BAND = 64 * 1024
"""Buffers of this many bytes and more stay out of the stream; below, a copy costs less."""

PLAIN = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, PickleBuffer}
    | {tuple, list, dict, set, frozenset}
)
"""Types that the C pickler never offers to `reducer_override`."""


def collector(buffers: list[memoryview]) -> Callable[[PickleBuffer], bool]:
    """Returns a pickler's `buffer_callback` that gathers the large buffers in `buffers`.

    The pickler itself refuses buffers that are not contiguous, so that `raw()` cannot fail here.
    """

    def in_band(buffer: PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return in_band


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to choose."""


class PickleSerializer(Serializer):
    """Pickles with a library. One pickler per value, so threads share nothing but the class.

    Args:
        pickler: makes a pickler that asks its attribute `reduce` first.
    """

    def __init__(self, pickler: Callable[..., Any]) -> None:
        self._pickler = pickler

    def dumps(self, value: Any, reduce: Reduce) -> Payload:
        """Serializes a value."""
        file = BytesIO()
        buffers: list[memoryview] = []
        pickler = self._pickler(file, PROTOCOL, buffer_callback=collector(buffers))
        pickler.reduce = reduce
        pickler.dump(value)
        return Payload(file.getvalue(), buffers)

    def loads(self, payload: Payload) -> Any:
        """Rebuilds a value."""
        return pickle.loads(payload.head, buffers=payload.buffers)
