"""What the serializers that speak pickle have in common."""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleBuffer

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
