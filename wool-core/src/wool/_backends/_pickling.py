"""The common part of serializers that speak pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

PROTOCOL = 5
"""The pickle protocol that knows out-of-band buffers; every supported Python has it."""

OUT_OF_BAND = 64 * 1024
"""Buffers of this many bytes and more stay out of the stream; below, a copy costs less."""

PLAIN = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, PickleBuffer}
    | {tuple, list, dict, set, frozenset}
)
"""Types that the C pickler never offers to `reducer_override`."""


_ATOMS = frozenset({type(None), bool, int, float, str, bytes})

_type: Callable[[Any], Any] = type
"""Tells types of values of which type checkers know nothing."""


def dump_plain(value: Any) -> bytes | None:
    """Pickles a value that is sure to be of numbers and strings alone; None for any other one.

    Most arguments and results are, and to make a pickler for them takes longer than they do.
    """
    items = value
    kind = _type(value)
    if kind is tuple and len(value) == 2 and _type(value[1]) is dict and not value[1]:
        items = value[0]  # the arguments of a call, none of them by keyword
        kind = _type(items)
    plain = _ATOMS.issuperset(map(type, items)) if kind is tuple else kind in _ATOMS
    return pickle.dumps(value, PROTOCOL) if plain else None


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
