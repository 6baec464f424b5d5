"""Values made ready for one connection: what its peer lacks in code goes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wool._protocol import frames as f
from wool._serialization.calls import Call
from wool._serialization.classes import PROCESS_BYTES
from wool._serialization.codec import Codec, Encoded
from wool._serialization.references import Export
from wool._session.session import Session
from wool.abc import Buffer


@dataclass(frozen=True, slots=True)
class Packed:
    """What a frame carries.

    Attributes:
        codes: names the leading segments, which are code that the peer lacks.
        calls: unstarted calls that the value describes.
        exports: live objects that it refers to.
    """

    codes: list[f.Code] = field(default_factory=list[f.Code])
    segments: list[Buffer] = field(default_factory=list[Buffer])
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()

    @property
    def sizes(self) -> list[int]:
        """The length of each segment."""
        return [len(segment) for segment in self.segments]


def pack(codec: Codec, session: Session, encoded: Encoded) -> Packed:
    """Adds what code the peer of a session lacks.

    Raises:
        SerializationError: some of the code cannot be sent.
    """
    if not encoded.code:
        return Packed([], encoded.segments, encoded.calls, encoded.exports)
    known, origin = session.known, session.peer.process
    lacking = {
        key: item
        for key, item in encoded.code.items()
        if key not in known and key[:PROCESS_BYTES] != origin
    }
    units = codec.units(lacking)
    codes = [f.Code(unit.key, list(unit.provides)) for unit in units]
    segments = [*(unit.data for unit in units), *encoded.segments]
    return Packed(codes, segments, encoded.calls, encoded.exports)
