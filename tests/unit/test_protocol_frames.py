"""Frames as bytes, and that docs/protocol.md lists them as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.protocolkit import CALLING, FRAMES, HANDSHAKING, frames, joined
from wool._code.identity import KEY_BYTES
from wool._peer.references import RELEASED
from wool._protocol import frames as f
from wool._protocol.status import CallStatus, Line, ProcessStatus
from wool._values.codec import MOST_CODE, MOST_OBJECTS
from wool.exceptions import ProtocolError

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


@given(frames(CALLING), st.binary(max_size=100))
def test_frames_survive(frame: Any, payload: bytes) -> None:
    decoded, rest = f.decode_call(f.encode(frame) + payload)
    assert decoded == frame
    assert type(decoded) is type(frame)
    assert rest == payload


@given(frames(HANDSHAKING))
def test_handshake_frames_survive(frame: Any) -> None:
    assert f.decode_handshake(f.encode(frame)) == frame


@given(frames(HANDSHAKING))
def test_the_handshake_has_no_payload(frame: Any) -> None:
    with pytest.raises(ProtocolError, match="payload"):
        f.decode_handshake(f.encode(frame) + b"x")


@given(frames(CALLING))
def test_frames_of_a_newer_version_may_have_more_fields(frame: Any) -> None:
    fields = msgspec.msgpack.decode(f.encode(frame)[f.PREFIX :])
    header = msgspec.msgpack.encode([*fields, {"new": [1]}])
    assert f.decode_call(len(header).to_bytes(4, "little") + header)[0] == frame


@pytest.mark.parametrize("header", [b"\x93\x04\xa2\xff\xfe\xa1a", b"\x93\x04\xa1\xc3\xa1a"])
def test_text_that_is_not_utf_8(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        f.decode_handshake(len(header).to_bytes(4, "little") + header)


def test_the_header_has_a_limit() -> None:
    room = f.MAX_HEADER - len(f.encode(f.Reject(1, ""))) - 100
    frame = f.Reject(1, "x" * room)
    assert f.decode_call(f.encode(frame))[0] == frame
    with pytest.raises(ValueError, match="Reject"):
        f.encode(f.Reject(1, "x" * f.MAX_HEADER))
    with pytest.raises(ProtocolError, match="claims"):
        f.decode_call((f.MAX_HEADER + 1).to_bytes(4, "little") + bytes(f.MAX_HEADER + 1))


def test_the_most_that_a_value_can_mention_fits_into_a_header() -> None:
    """A frame that could not be sent would end more than one call."""
    names, key = [bytes(KEY_BYTES)] * MOST_OBJECTS, bytes(KEY_BYTES + 4)
    codes = [f.Code(key, (key, key))] * MOST_CODE
    f.encode(f.Open(1, [1 << 30], codes, names, routine=f"#{key.hex()}"))
    f.encode(f.Release([f.Lent(name, 1) for name in names]))
    f.encode(f.Release([f.Lent(name, 1 << 40) for name in names[:RELEASED]]))


def test_a_message_is_what_the_documentation_says() -> None:
    assert f.encode(f.Recall(5)) == b"\x03\0\0\0\x92\x0d\x05"
    assert joined([f.encode(f.Chunk(3)), b"data"]) == b"\x03\0\0\0\x92\x1e\x03data"


# The table in docs/protocol.md ----------------------------------------------------------------


def field(described: Any) -> str:
    """Returns a field as the documentation writes it."""
    text = f"{described.name}: {name_of(described.type)}"
    if described.default is not msgspec.NODEFAULT:
        text += f" = {written(described.default)}"
    elif described.default_factory is not msgspec.NODEFAULT:
        text += " = []"
    return text


def written(default: Any) -> str:
    """Returns a default as the documentation writes it."""
    if isinstance(default, msgspec.Struct):
        return "its defaults"
    return "nil" if default is None else msgspec.json.encode(default).decode()


def name_of(kind: Any) -> str:
    match kind:
        case msgspec.inspect.IntType():
            if kind.le in (2, 3, 4):
                return f"int {kind.ge}…{kind.le}"
            return "id" if kind.ge else "count"
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            return f"[{name_of(kind.item_type)}]"
        case msgspec.inspect.UnionType():
            return " or ".join(sorted(map(name_of, kind.types)))
        case msgspec.inspect.StructType():
            return kind.cls.__name__
    return {
        msgspec.inspect.FloatType: "float",
        msgspec.inspect.StrType: "str",
        msgspec.inspect.BytesType: "bin",
        msgspec.inspect.BoolType: "bool",
        msgspec.inspect.NoneType: "nil",
    }[type(kind)]


def fields(struct: type[Any]) -> str:
    described = msgspec.inspect.type_info(struct)
    assert isinstance(described, msgspec.inspect.StructType)
    return ", ".join(f"`{field(each)}`" for each in described.fields) or "none"


def row(struct: type[f.Frame]) -> str:
    return f"| {struct.__struct_config__.tag} | {struct.__name__} | {fields(struct)} |"


def test_the_documentation_lists_every_frame() -> None:
    """If this fails, these are the rows to put into docs/protocol.md."""
    documented = re.findall(r"^\| \d+ \|.*$", PROTOCOL.read_text("utf-8"), re.MULTILINE)
    assert documented == [row(struct) for struct in FRAMES]


@pytest.mark.parametrize(
    "struct",
    [f.Code, f.Summary, f.Piece, f.Variable, f.Lent, f.Peer, ProcessStatus, CallStatus, Line],
)
def test_the_documentation_lists_nested_structures(struct: type[Any]) -> None:
    assert f"- {struct.__name__}: {fields(struct)}" in PROTOCOL.read_text("utf-8")


def test_the_documentation_knows_the_numbers() -> None:
    text = PROTOCOL.read_text("utf-8")
    assert f"{f.MAX_HEADER >> 20} MiB" in text
    assert "4096 bytes" in text
    assert (f.NEXT, f.SEND, f.THROW, f.CLOSE) == (0, 1, 2, 3)
    assert "0 next, 1 send, 2 throw, 3 close" in text
