"""A value as it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType

import msgspec

from wool._serialization.calls import Call
from wool._serialization.references import Export
from wool.abc import Buffer


class Encoded(msgspec.Struct, frozen=True):
    """A value as segments, and what it mentions.

    Attributes:
        code: the classes and routines that travel by value, by their keys.
        calls: the unstarted calls that it describes.
        exports: the live objects that it refers to.
    """

    segments: list[Buffer]
    code: dict[bytes, type | FunctionType]
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()
