"""Payloads cut up and put together."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.protocolkit import content, joined, opening
from wool._protocol import transfer
from wool._protocol.transfer import Inbound, Missing, Outbound

WINDOW = 1 << 62


def cut(segments: Sequence[bytes], chunk: int, window: int = WINDOW) -> list[list[bytes]]:
    outbound = Outbound(1, segments, window)
    chunks: list[list[bytes]] = []
    while outbound.left and outbound.credit:
        chunks.append([bytes(piece) for piece in outbound.take(chunk)])
    return chunks


def test_nothing_is_copied_on_the_way_out() -> None:
    data = bytearray(10)
    (piece,) = Outbound(1, [data], WINDOW).take(4)
    assert piece.obj is data


@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 50)), max_size=8),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_what_is_cut_is_put_together(sizes: list[int], first: int, others: int) -> None:
    segments = content(sizes)
    inbound = Inbound(opening(1, sizes))
    outbound = Outbound(1, segments, WINDOW)
    limit = first
    while outbound.left:
        assert inbound.left == outbound.left
        inbound.feed(memoryview(joined(outbound.take(limit))))
        limit = others
    assert not inbound.left
    assert inbound.unacknowledged == sum(sizes)
    received = inbound.segments()
    assert [bytes(segment) for segment in received] == segments
    assert not any(memoryview(segment).readonly for segment in received)


def test_no_memory_is_taken_before_bytes_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def allocate(size: int) -> bytearray:
        asked.append(size)
        return bytearray(size)

    monkeypatch.setattr(transfer, "allocate", allocate)
    inbound = Inbound(opening(1, [5, 0, 7]))
    inbound.feed(memoryview(b""))
    assert asked == []
    inbound.feed(memoryview(b"1234"))
    inbound.feed(memoryview(b"5"))
    assert asked == [5]
    inbound.feed(memoryview(b"6"))
    assert asked == [5, 7]


@pytest.mark.parametrize("size", [2**40, 2**50, 2**62])
def test_a_segment_no_machine_can_hold(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    inbound = Inbound(opening(1, [size]))
    with pytest.raises(MemoryError, match=str(size)) as caught:
        inbound.feed(memoryview(b"x"))
    inbound.forget(caught.value)
    inbound.feed(memoryview(b"yz"))
    assert inbound.left == size - 3
    assert inbound.unacknowledged == 3


def test_large_segments_are_writable_and_whole() -> None:
    size = transfer._MAP_FROM + 1
    (data,) = content([size])
    inbound = Inbound(opening(1, [size]))
    for start in range(0, size, 300_000):
        inbound.feed(memoryview(data)[start : start + 300_000])
    (segment,) = inbound.segments()
    assert bytes(segment) == data
    assert not memoryview(segment).readonly


def test_missing_segments_say_why() -> None:
    missing = Missing(3, "no memory for 5 bytes")
    assert len(missing) == 3
    assert missing  # it is not an empty payload
    for read in (lambda: missing[0], lambda: missing[1:], lambda: list(missing)):
        with pytest.raises(MemoryError, match="5 bytes"):
            read()
