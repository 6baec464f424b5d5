"""Values made ready for one connection: what its peer lacks in code goes along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType

from wool._code.code import CodeStore
from wool._code.identity import PROCESS_BYTES
from wool._code.units import CodeUnit
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.transfer import Missing
from wool.abc import Buffer

Code = type | FunctionType


def lacking(session: Session, code: Mapping[bytes, Code]) -> dict[bytes, Code]:
    """Returns what of some code the peer does not have."""
    known, origin = session.known, session.peer.process
    return {
        key: item
        for key, item in code.items()
        if key not in known and key[:PROCESS_BYTES] != origin
    }


def prepend(
    units: Sequence[CodeUnit], segments: Sequence[Buffer]
) -> tuple[tuple[f.Code, ...], list[Buffer]]:
    """Puts code before some segments; returns its names, and all segments."""
    codes = tuple(f.Code(unit.key, unit.provides) for unit in units)
    return codes, [*(unit.data for unit in units), *segments]


def keep_code(
    store: CodeStore, session: Session, codes: Sequence[f.Code], segments: Sequence[Buffer]
) -> Sequence[Buffer]:
    """Keeps the code that came with a payload; returns the segments of the payload.

    If there is no memory for all of it, whoever looks at what is returned gets the `MemoryError`.
    """
    try:
        units = [
            CodeUnit(code.key, bytes(data), code.provides)
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
