"""The transport `unix`: its directories, its framing, and peers that do not keep up or go away."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.transports import Served, connected, lost, read, serving
from wool._transports import sockets, stream
from wool._transports.stream import SCRATCH, Cutter
from wool._transports.unix import MAX_PATH, Options, UnixTransport
from wool.abc import ConnectFailed, Connection

MIB = 1 << 20


@pytest.fixture
def transport(folder: Path) -> UnixTransport:
    return UnixTransport(Options())


def prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


async def raw(served: Served) -> socket.socket:
    """Connects without the transport: a peer that can misbehave."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, served.address.removeprefix("unix://"))
    return sock


async def test_a_path_that_is_too_long(transport: UnixTransport) -> None:
    address = f"unix:///tmp/{'x' * MAX_PATH}"
    with pytest.raises(ConnectFailed, match=f"{MAX_PATH} bytes"):
        await transport.listen(address, credentials=None)
    with pytest.raises(ConnectFailed, match=f"{MAX_PATH} bytes"):
        await transport.connect(address, credentials=None, timeout=1)


# Connecting


async def test_many_that_wait_to_be_accepted(transport: UnixTransport, folder: Path) -> None:
    """Another one waits as well: a busy listener is neither gone nor somebody else's."""
    others: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen(0)
        while not others or others[-1].connect_ex(str(folder / "s")) == 0:
            others.append(socket.socket(socket.AF_UNIX))
            others[-1].setblocking(False)
        dialling = asyncio.ensure_future(
            transport.connect(f"unix://{folder}/s", credentials=None, timeout=10)
        )
        await asyncio.wait([dialling], timeout=0.05)
        assert not dialling.done()
        accepted = [listening.accept()[0] for _ in others[1:]]
        pipe = await dialling
        for sock in (*accepted, *others, listening.accept()[0]):
            sock.close()
        await lost(pipe)
        await pipe.aclose()


async def test_a_peer_of_another_user(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(transport) as served:
        monkeypatch.setattr(sockets, "peer_uid", lambda sock: os.geteuid() + 1)
        with pytest.raises(ConnectFailed, match="another user"):
            await transport.connect(served.address, credentials=None, timeout=5)
        sock = await raw(served)
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        sock.close()
        assert served.connections.empty()


# Framing


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@given(
    st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400)), st.integers(4, 50)
)
def test_what_was_read_elsewhere_is_cut(sent: list[bytes], places: list[int], scratch: int) -> None:
    cutter, got = Cutter(scratch), list[bytes]()
    for piece in cut(b"".join(map(prefixed, sent)), places):
        got += map(bytes, cutter.cut(piece, 40))
    assert got == sent
    assert cutter.is_empty
    assert not cutter.fault


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 40))
def test_nothing_is_cut_behind_a_message_that_is_too_large(sent: list[bytes], limit: int) -> None:
    cutter = Cutter()
    got = [*map(bytes, cutter.cut(b"".join(map(prefixed, sent)), limit))]
    assert got == [*itertools.takewhile(lambda message: len(message) <= limit, sent)]
    assert bool(cutter.fault) == (len(got) < len(sent))
    assert cutter.cut(prefixed(b""), limit) == ([] if cutter.fault else [b""])


@given(
    st.lists(st.lists(st.integers(0, 90_000), max_size=4), max_size=4),
    st.sampled_from([64 << 10, MIB]),
)
def test_pieces(sizes: list[list[int]], most: int) -> None:
    """Together they are the messages with their lengths; none is too large, and none is empty."""
    batch = [[bytes([i]) * size for i, size in enumerate(each)] for each in sizes]
    pieces = stream.pack(batch, most)
    assert all(0 < len(piece) <= most for piece in pieces)
    assert b"".join(pieces) == b"".join(prefixed(b"".join(message)) for message in batch)


def test_large_segments_are_not_copied() -> None:
    data = bytearray(MIB)
    pieces = stream.pack([[b"head", data]], 64 << 10)
    assert all(isinstance(piece, memoryview) and piece.obj is data for piece in pieces[1:])


async def test_nothing_overtakes_a_rest_that_is_being_written(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may want to send before the loop's transport has the rest."""
    async with connected(transport) as (ours, theirs):
        count = 0
        while theirs.can_send_now():  # nobody reads
            theirs.send_now([[bytes(MIB)]])
            count += 1
        overtaking: list[bool] = []
        write = theirs._transport.write

        def write_meanwhile(data: Any) -> None:
            overtaking.append(theirs.can_send_now())
            write(data)

        monkeypatch.setattr(theirs._transport, "write", write_meanwhile)
        assert await read(ours, count) == [bytes(MIB)] * count
        assert overtaking == [False]


async def test_no_descriptor_to_spare(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is nothing to send by from other threads, but messages still travel."""

    def fail(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", fail)
    async with connected(transport) as (ours, theirs):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            assert not sender.can_send_now()
            await sender.send([[b"hello"]])
            assert await read(receiver, 1) == [b"hello"]


async def test_what_a_peer_sent_before_it_closed_outlives_a_write(transport: UnixTransport) -> None:
    """News for a worker that has just ended must not cost its last answer."""
    async with serving(transport) as served:
        peer = await raw(served)
        pipe = await served.next()
        await asyncio.get_running_loop().sock_sendall(peer, prefixed(b"answer"))
        peer.close()
        await pipe.send([[b"news"]])  # before the loop has read
        assert await read(pipe, 1) == [b"answer"]
        await lost(pipe)


# Limits


async def test_a_stranger_may_send_little(transport: UnixTransport) -> None:
    assert Connection.receive_limit <= 4096
    async with serving(transport) as served:
        sock = await raw(served)
        pipe = await served.next(stranger=True)
        await asyncio.get_running_loop().sock_sendall(sock, (1 << 31).to_bytes(4, "little"))
        await lost(pipe)
        assert len(cast(Any, pipe).get_buffer(-1)) <= SCRATCH
        sock.close()


# Ends


@pytest.mark.parametrize("rest", [b"", b"\x05\0", b"\x05\0\0\0", b"\x05\0\0\0part"])
async def test_a_half_closed_peer(transport: UnixTransport, rest: bytes) -> None:
    """One that sends no more is gone; a message it has not finished never was."""
    async with serving(transport) as served:
        sock = await raw(served)
        pipe = await served.next()
        await asyncio.get_running_loop().sock_sendall(sock, prefixed(b"whole") + rest)
        sock.shutdown(socket.SHUT_WR)
        assert await read(pipe, 1) == [b"whole"]
        await lost(pipe)
        sock.close()
