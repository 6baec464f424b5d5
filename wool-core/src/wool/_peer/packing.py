"""Values made ready for one connection: what its peer lacks in code goes along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType

import msgspec

from wool._code.calls import Call
from wool._code.code import CodeStore
from wool._code.identity import PROCESS_BYTES
from wool._code.units import CodeUnit
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.transfer import Missing
from wool._values.codec import Codec, Encoded
from wool._values.context import Change
from wool._values.references import Export
from wool.abc import Buffer

Code = type | FunctionType


class Packed(msgspec.Struct, frozen=True):
    """The payload of a frame.

    Attributes:
        codes: names the leading segments, which are code that the peer lacks.
        calls: unstarted calls that the value describes.
        exports: live objects that it refers to.
        context: names the trailing segments, which are values of context variables.
    """

    codes: tuple[f.Code, ...] = ()
    segments: list[Buffer] = []  # Struct makes a new one for each
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()
    context: tuple[f.Variable, ...] = ()


def pack(codec: Codec, session: Session, encoded: Encoded) -> Packed:
    """Adds what code the peer of a session lacks.

    Raises:
        SerializationError: some of the code cannot be sent.
    """
    if not encoded.code:
        return Packed((), encoded.segments, encoded.calls, encoded.exports)
    units = codec.units(lacking(session, encoded.code))
    codes = tuple(map(name_code, units))
    segments = [*(unit.data for unit in units), *encoded.segments]
    return Packed(codes, segments, encoded.calls, encoded.exports)


def lacking(session: Session, code: Mapping[bytes, Code]) -> dict[bytes, Code]:
    """Returns what of some code the peer does not have."""
    known, origin = session.known, session.peer.process
    return {
        key: item
        for key, item in code.items()
        if key not in known and key[:PROCESS_BYTES] != origin
    }


def name_code(unit: CodeUnit) -> f.Code:
    """Says which code a payload segment is."""
    return f.Code(unit.key, list(unit.provides))


def supply(call: int, units: Sequence[CodeUnit]) -> tuple[f.Supply, Sequence[Buffer]]:
    """Makes the answer to the need `call`: its frame and its payload."""
    data = [unit.data for unit in units]
    return f.Supply(call, list(map(len, data)), tuple(map(name_code, units))), data


def pack_context(codec: Codec, session: Session, packed: Packed, changes: list[Change]) -> Packed:
    """Adds what has become of context variables."""
    more = pack(codec, session, values_of(changes))
    sent = {code.key for code in packed.codes}
    new = [i for i, code in enumerate(more.codes) if code.key not in sent]
    units, count = len(packed.codes), len(more.codes)
    return msgspec.structs.replace(
        packed,
        codes=(*packed.codes, *(more.codes[i] for i in new)),
        segments=[
            *packed.segments[:units],
            *(more.segments[i] for i in new),
            *packed.segments[units:],
            *more.segments[count:],
        ],
        context=variables_of(changes),
    )


def values_of(changes: Sequence[Change]) -> Encoded:
    """Returns the values of context variables, one after another."""
    segments = [segment for change in changes for segment in change.segments]
    return Encoded(segments, {k: v for change in changes for k, v in change.code.items()})


def variables_of(changes: Sequence[Change]) -> tuple[f.Variable, ...]:
    """Describes what has become of context variables."""
    return tuple(
        f.Variable(
            names=list(change.names),
            origin=change.origin,
            change=change.kind,
            segments=len(change.segments),
            remark=change.remark,
        )
        for change in changes
    )


def unpack_context(
    context: Sequence[f.Variable], segments: Sequence[Buffer]
) -> tuple[Sequence[Buffer], Sequence[Change]]:
    """Takes the values of context variables off the end of a payload; returns the rest and them."""
    end = len(segments) - sum(variable.segments for variable in context)
    arrived: list[Change] = []
    start = end
    try:
        for v in context:
            values = segments[start : start + v.segments]
            arrived.append(Change(v.names, v.origin, v.change, values, remark=v.remark))
            start += v.segments
        return segments[:end], arrived
    except MemoryError:  # there was none for this payload; whoever looks at its value learns of it
        return segments, ()


def keep_code(
    store: CodeStore, session: Session, codes: Sequence[f.Code], segments: Sequence[Buffer]
) -> Sequence[Buffer]:
    """Keeps the code that came with a payload; returns the segments of the payload.

    If there is no memory for all of it, whoever looks at what is returned gets the `MemoryError`.
    """
    try:
        units = [
            CodeUnit(code.key, bytes(data), tuple(code.provides))
            for code, data in zip(codes, segments, strict=False)
        ]
        rest = segments[len(codes) :]
    except MemoryError as error:  # the code is asked for again if need be
        return Missing(len(segments) - len(codes), str(error) or "out of memory")
    for unit in units:
        store.add(unit)
    mark_known(session, codes)
    return rest


def mark_known(session: Session, codes: Iterable[f.Code]) -> None:
    """Notes that the peer has code, because it was sent or came from there."""
    for code in codes:
        session.note_known(code.key, code.provides)
