"""The transport `unix`: its directories, its framing, and peers that do not keep up or go away."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.delegationkit import elsewhere
from wool._transports import sockets, stream
from wool._transports.stream import MAX_MESSAGE, SCRATCH, Cutter
from wool._transports.unix import MAX_PATH, Options, UnixConnection, UnixTransport
from wool.abc import ConnectFailed, Connection, ConnectionLost, MessageTooLarge, Segments

MIB = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder with a short path."""
    path = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def transport(folder: Path) -> UnixTransport:
    return UnixTransport(Options())


def prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def read(pipe: Connection, count: int) -> list[bytes]:
    """The next `count` messages; fails if there are more at once."""
    got: list[bytes] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += map(bytes, await pipe.receive())
    assert len(got) == count
    return got


async def lost(pipe: Connection) -> None:
    """Checks that nothing more comes, and nothing more can be sent."""
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionLost):
            await pipe.receive()
        with pytest.raises(ConnectionLost):
            await pipe.send([[b"x"]])


class Served:
    """A listener that keeps its connections."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.path = address.removeprefix("unix://")
        self.pipes: asyncio.Queue[Connection] = asyncio.Queue()

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            pipe = await self.pipes.get()
        pipe.receive_limit = MAX_MESSAGE
        return pipe

    async def dial(self) -> socket.socket:
        """Connects without the transport: a peer that can misbehave."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.path)
        return sock


@asynccontextmanager
async def serving(transport: UnixTransport) -> AsyncIterator[Served]:
    listener = await transport.listen(None, credentials=None)
    served = Served(listener.address)

    async def handle(pipe: Connection) -> None:
        served.pipes.put_nowait(pipe)
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(listener.serve(handle))
    try:
        yield served
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await listener.aclose()


@asynccontextmanager
async def connected(transport: UnixTransport) -> AsyncIterator[tuple[Any, Any]]:
    """The two ends of a connection."""
    async with serving(transport) as served:
        ours = await transport.connect(served.address, credentials=None, timeout=5)
        ours.receive_limit = MAX_MESSAGE
        try:
            yield ours, await served.next()
        finally:
            await ours.aclose()


async def test_a_path_that_is_too_long(transport: UnixTransport) -> None:
    address = f"unix:///tmp/{'x' * MAX_PATH}"
    with pytest.raises(ConnectFailed, match=f"{MAX_PATH} bytes"):
        await transport.listen(address, credentials=None)
    with pytest.raises(ConnectFailed, match=f"{MAX_PATH} bytes"):
        await transport.connect(address, credentials=None, timeout=1)


# Connecting


async def test_nobody_listens(transport: UnixTransport, folder: Path) -> None:
    abandoned = folder / "abandoned"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(abandoned))
    for path in (folder / "nothing", abandoned):
        with pytest.raises(ConnectFailed) as raised:
            await transport.connect(f"unix://{path}", credentials=None, timeout=1)
        assert raised.value.reason == "refused"


async def test_no_descriptor_to_accept_with(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again after a while, and tells nobody."""
    complaints, failed = list[dict[str, Any]](), list[bool]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def fail(_: socket.socket) -> Any:
        failed.append(True)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with serving(transport) as served:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", fail)
            ours = await transport.connect(served.address, credentials=None, timeout=5)
            await until(lambda: failed)
        await served.next()  # there are some
        await ours.aclose()
    assert not complaints


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


async def test_connecting_after_the_listener_has_closed(transport: UnixTransport) -> None:
    async with serving(transport) as served:
        pass
    with pytest.raises(ConnectFailed) as raised:
        await transport.connect(served.address, credentials=None, timeout=1)
    assert raised.value.reason == "refused"


async def test_an_address_that_is_taken(transport: UnixTransport) -> None:
    async with serving(transport) as served:
        with pytest.raises(ConnectFailed, match="cannot listen"):
            await transport.listen(served.address, credentials=None)
        ours = await transport.connect(served.address, credentials=None, timeout=5)
        await ours.aclose()


async def test_a_temporary_folder_whose_path_is_too_long(
    transport: UnixTransport, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder / ("x" * MAX_PATH)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ConnectFailed, match="too long"):
        await transport.listen(None, credentials=None)
    assert list(long.iterdir()) == []


async def test_a_peer_of_another_user(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(transport) as served:
        monkeypatch.setattr(sockets, "peer_uid", lambda sock: os.geteuid() + 1)
        with pytest.raises(ConnectFailed, match="another user"):
            await transport.connect(served.address, credentials=None, timeout=5)
        sock = await served.dial()
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        sock.close()
        assert served.pipes.empty()


async def test_what_is_known_of_the_peer(transport: UnixTransport) -> None:
    async with connected(transport) as pipes:
        for pipe in pipes:
            assert pipe.extra("uid") == os.geteuid()
            assert pipe.extra("same_host") is True
            assert pipe.extra("peer") == "unix socket"
            assert pipe.extra("certificate", "none") == "none"


async def test_a_handler_that_fails_ends_its_own_connection_only(transport: UnixTransport) -> None:
    listener = await transport.listen(None, credentials=None)
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))

    async def handle(pipe: Connection) -> None:
        first = bytes((await pipe.receive())[0])
        if first == b"fail":
            raise ValueError("on purpose")
        await pipe.send([[first]])
        await pipe.receive()

    task = asyncio.create_task(listener.serve(handle))
    good = await transport.connect(listener.address, credentials=None, timeout=5)
    bad = await transport.connect(listener.address, credentials=None, timeout=5)
    await bad.send([[b"fail"]])
    await lost(bad)
    await good.send([[b"work"]])
    assert await read(good, 1) == [b"work"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await lost(good)


async def test_connections_outlive_the_listener(transport: UnixTransport, folder: Path) -> None:
    listener = await transport.listen(None, credentials=None)
    pipes: asyncio.Queue[Connection] = asyncio.Queue()

    async def handle(pipe: Connection) -> None:
        pipes.put_nowait(pipe)
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(listener.serve(handle))
    ours = await transport.connect(listener.address, credentials=None, timeout=5)
    theirs = await pipes.get()
    await listener.aclose()
    assert not Path(listener.address.removeprefix("unix://")).parent.exists()
    await ours.send([[b"still", b" here"]])
    assert await read(theirs, 1) == [b"still here"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ours.aclose()


# Framing


class Socket:
    """Stands for asyncio's transport."""

    def __init__(self) -> None:
        self.aborted = False
        self.paused = False
        self.written = b""
        theirs, self.sock = socket.socketpair()
        theirs.close()

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self.sock if name == "socket" else None

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def pipe_on(sock: Socket, limit: int = MAX_MESSAGE) -> UnixConnection:
    pipe = UnixConnection()
    pipe.receive_limit = limit
    pipe.connection_made(cast(Any, sock))
    sock.sock.close()
    return pipe


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


def arrive(pipe: UnixConnection, data: bytes) -> None:
    """As a loop does it, which reads no more than there is room for."""
    while data:
        room = pipe.get_buffer(-1)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        pipe.buffer_updated(count)
        data = data[count:]


messages = st.lists(st.binary(max_size=40), max_size=8)
places = st.lists(st.integers(0, 10_000), max_size=20)


@given(messages, places, st.sets(st.integers(0, 20)))
def test_any_fragmentation(sent: list[bytes], places: list[int], reads: set[int]) -> None:
    """Whatever pieces arrive, and whenever somebody reads, the messages are those sent."""

    async def run() -> list[bytes]:
        pipe = pipe_on(Socket())
        got: list[bytes] = []
        for i, piece in enumerate(cut(b"".join(map(prefixed, sent)), places)):
            arrive(pipe, piece)
            if i in reads and pipe._inbox.waiting:
                got += map(bytes, await pipe.receive())
        pipe.connection_lost(None)
        with pytest.raises(ConnectionLost):
            while True:
                got += map(bytes, await pipe.receive())
        return got

    assert asyncio.run(run()) == sent


@given(st.lists(st.lists(st.integers(0, 200_000), max_size=4), max_size=4))
def test_what_is_written(sizes: list[list[int]]) -> None:
    """Segments are joined or not, as their size has it; the bytes are the same."""
    batch = [[bytes([i]) * size for i, size in enumerate(each)] for each in sizes]

    async def run() -> bytes:
        sock = Socket()
        await pipe_on(sock).send(batch)
        return sock.written

    assert asyncio.run(run()) == b"".join(prefixed(b"".join(segments)) for segments in batch)


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
        peer = await served.dial()
        pipe = await served.next()
        await asyncio.get_running_loop().sock_sendall(peer, prefixed(b"answer"))
        peer.close()
        await pipe.send([[b"news"]])  # before the loop has read
        assert await read(pipe, 1) == [b"answer"]
        await lost(pipe)


async def test_what_another_thread_had_read_when_a_write_failed(transport: UnixTransport) -> None:
    """The rest of that message follows, and is not taken for one of its own."""
    inner = prefixed(b"not a message")
    message, given = b"one message that contains " + inner, list[bytes]()

    def take(messages: Sequence[bytes | memoryview]) -> None:
        given.extend(map(bytes, messages))

    async with serving(transport) as served, elsewhere() as there:
        peer = await served.dial()
        pipe = await served.next()
        pipe.receive_limit = MAX_MESSAGE
        pumping = asyncio.ensure_future(pipe.pump(take))
        await asyncio.sleep(0)
        assert pipe.delegate(there.loop, len)
        await there.block()
        peer.send(prefixed(message)[: -len(inner)])
        there.let()
        while pipe._delegation._read is not None:  # without a turn of this loop
            pass
        peer.send(inner)
        peer.close()
        await pipe.send([[b"news"]])
        with pytest.raises(ConnectionLost):
            await pumping
    assert given == [message]


async def test_a_peer_that_goes_on_sending_is_not_read_for_ever(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a write has failed. Messages that are empty add nothing to what waits."""
    read_so_far = 0

    def endless(sock: socket.socket, buffer: memoryview) -> int:
        nonlocal read_so_far
        if read_so_far > 8 << 20:
            raise OSError("for ever")
        buffer[:] = bytes(len(buffer))
        read_so_far += len(buffer)
        return len(buffer)

    async with serving(transport) as served:
        peer = await served.dial()
        pipe = await served.next()
        peer.close()
        monkeypatch.setattr(socket.socket, "recv_into", endless)
        await pipe.send([[b"news"]])
        await until(lambda: pipe._end)
        assert 0 < read_so_far < 4 << 20


async def test_messages_over_a_socket(transport: UnixTransport) -> None:
    batch: list[Segments] = [
        [],
        [b"a", bytearray(b"b"), memoryview(b"c")],
        [b"x" * 65_535, b"y" * 65_536, b"z" * 65_537],
        [os.urandom(3 * MIB)],
        *([n.to_bytes(4, "big")] for n in range(1000)),
    ]
    async with connected(transport) as (ours, theirs):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            _, got = await asyncio.gather(sender.send(batch), read(receiver, len(batch)))
            assert got == [b"".join(segments) for segments in batch]


async def test_a_cancelled_receive_loses_nothing(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        for number in range(5):
            waiting = asyncio.create_task(theirs.receive())
            await asyncio.sleep(0)
            await ours.send([[b"message %d" % number]])
            await until(lambda: theirs._inbox.waiting)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await read(theirs, 1) == [b"message %d" % number]


# Limits


async def test_a_message_over_the_limit_drops_the_connection(transport: UnixTransport) -> None:
    """Its announcement is enough; what came before is still delivered."""
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.next()
        pipe.receive_limit = 4096
        fits = b"x" * 4096
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, prefixed(fits) + (4097).to_bytes(4, "little"))
        assert await read(pipe, 1) == [fits]
        await lost(pipe)
        sock.close()


async def test_a_stranger_may_send_little(transport: UnixTransport) -> None:
    assert Connection.receive_limit <= 4096
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.pipes.get()
        await asyncio.get_running_loop().sock_sendall(sock, (1 << 31).to_bytes(4, "little"))
        await lost(pipe)
        assert len(cast(Any, pipe).get_buffer(-1)) <= SCRATCH
        sock.close()


async def test_a_message_that_is_too_large_is_not_sent(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        assert ours.max_message_size == MAX_MESSAGE
        half = bytes(MAX_MESSAGE // 2)
        with pytest.raises(MessageTooLarge, match=str(MAX_MESSAGE)):
            await ours.send([[b"none of it"], [half, half, b"x"]])
        await asyncio.gather(ours.send([[half, half]]), read(theirs, 1))
        await ours.send([[b"and on"]])
        assert await read(theirs, 1) == [b"and on"]


# Peers that do not keep up


async def test_back_pressure(transport: UnixTransport) -> None:
    """A clogged peer makes `send` wait, holds a bounded amount, and `receive` resumes it."""
    async with connected(transport) as (ours, theirs):
        sent: list[bytes] = [bytes([n]) * MIB for n in range(12)]

        async def send_all() -> None:
            for data in sent:
                await ours.send([[data]])

        sending = asyncio.create_task(send_all())
        await until(lambda: ours._writable is not None and not theirs._reading)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sending.done()
        assert theirs._inbox.waiting <= 4 * MIB
        _, got = await asyncio.gather(sending, read(theirs, len(sent)))
        assert got == sent
        assert theirs._reading and ours._writable is None


async def test_a_clogged_direction_does_not_clog_the_other(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        sending = asyncio.create_task(ours.send([[bytes(8 * MIB)]] * 2))
        await until(lambda: not theirs._reading)
        await theirs.send([[b"answer"]])
        assert await read(ours, 1) == [b"answer"]
        assert not sending.done()
        await asyncio.gather(sending, read(theirs, 2))


async def test_a_peer_that_goes_away_while_we_wait(transport: UnixTransport) -> None:
    """Both a waiting `send` and a waiting `receive` end."""
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.next()
        receiving = asyncio.create_task(pipe.receive())
        sending = asyncio.create_task(pipe.send([[bytes(8 * MIB)]]))
        await until(lambda: pipe._writable is not None)
        sock.close()
        async with asyncio.timeout(5):
            for waiting in (receiving, sending):
                with pytest.raises(ConnectionLost):
                    await waiting
        await lost(pipe)
        await pipe.aclose()


# Ends


async def test_what_has_arrived_is_delivered_before_the_end(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        await ours.send([[b"one"], [b"two"]])
        await ours.aclose()
        await until(lambda: theirs._end)
        assert await read(theirs, 2) == [b"one", b"two"]
        await lost(theirs)


async def test_much_for_a_peer_that_is_gone(
    transport: UnixTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """Loops log a warning for the fifth write to a socket that failed, and for each one after."""
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.next()
        sock.close()
        with contextlib.suppress(ConnectionLost):
            await pipe.send([[bytes(stream._JOIN_BELOW)] * 10])
        await lost(pipe)
    assert not caplog.records


@pytest.mark.parametrize("rest", [b"", b"\x05\0", b"\x05\0\0\0", b"\x05\0\0\0part"])
async def test_a_half_closed_peer(transport: UnixTransport, rest: bytes) -> None:
    """One that sends no more is gone; a message it has not finished never was."""
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.next()
        await asyncio.get_running_loop().sock_sendall(sock, prefixed(b"whole") + rest)
        sock.shutdown(socket.SHUT_WR)
        assert await read(pipe, 1) == [b"whole"]
        await lost(pipe)
        sock.close()


async def test_closing_sends_what_is_queued(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        sent = [os.urandom(2 * MIB) for _ in range(4)]
        sending = asyncio.create_task(ours.send([[data] for data in sent]))
        await until(lambda: ours._writable is not None)
        _, got = await asyncio.gather(ours.aclose(), read(theirs, len(sent)))
        assert got == sent
        await asyncio.gather(sending, return_exceptions=True)
        await lost(theirs)


async def test_closing_in_a_process_that_is_stopped_for_a_while(
    transport: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is queued still has its time to go out."""
    monkeypatch.setattr(stream, "FLUSH", 0.2)
    monkeypatch.setattr(stream, "LOOKS", 1000)
    async with connected(transport) as (ours, theirs):
        sent = [os.urandom(2 * MIB) for _ in range(4)]
        sending = asyncio.create_task(ours.send([[data] for data in sent]))
        await until(lambda: ours._writable is not None)
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        _, got = await asyncio.gather(ours.aclose(), read(theirs, len(sent)))
        assert got == sent
        await asyncio.gather(sending, return_exceptions=True)


async def test_closing_on_a_peer_that_takes_nothing(transport: UnixTransport) -> None:
    """It is given up soon."""
    async with serving(transport) as served:
        sock = await served.dial()
        pipe = await served.next()
        sending = asyncio.create_task(pipe.send([[bytes(8 * MIB)]]))
        await until(lambda: pipe._writable is not None)
        async with asyncio.timeout(20):
            await pipe.aclose()
            with pytest.raises(ConnectionLost):
                await sending
        sock.close()


async def test_closing_twice_and_from_both_ends(transport: UnixTransport) -> None:
    async with connected(transport) as (ours, theirs):
        receiving = asyncio.create_task(ours.receive())
        await asyncio.sleep(0)
        await asyncio.gather(ours.aclose(), theirs.aclose(), ours.aclose())
        await ours.aclose()
        with pytest.raises(ConnectionLost):
            await receiving
        for pipe in (ours, theirs):
            await lost(pipe)
