"""The conformance kit of transports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import itertools
import os
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio

from wool._security.tls import MutualChannel, ProxyChannel, ThrowawayChannel
from wool.abc import (
    Buffer,
    ConnectFailed,
    Connection,
    ConnectionLost,
    Handler,
    Listener,
    MessageTooLarge,
    Segments,
    Tls,
    Transport,
)
from wool.testing._kit import (
    STARTING,
    Process,
    cancelled,
    chance,
    compare,
    descriptors,
    leaves_nothing,
    remedy,
    say,
    soon,
    tidy,
    turns,
    until,
)

__all__ = ["TransportSuite", "throwaway_tls"]

KIB = 1 << 10
MIB = 1 << 20
SIZES = (0, 1, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 256 * KIB)
MESSAGE = 256 * KIB
BOUND = 64 * MIB
"""Bytes that both sides together may hold for a receiver that does not receive."""
PROMPTLY = 5.0
"""Seconds until the death of a peer is noticed; less than any keep-alive would take."""
NAME = "worker.example"
WORDS = {
    "nothing": b"",
    "one byte": b"\0",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "all bytes": bytes(range(256)) * 300,
}
"""First bytes of strangers."""


def noise(size: int) -> bytes:
    """Data in which a piece that is missing or misplaced shows."""
    return chance(size).randbytes(size)


def numbered(number: int) -> bytes:
    """One of many large messages."""
    return number.to_bytes(8, "big") * (MESSAGE // 8)


def pieces(data: bytes, count: int) -> list[Buffer]:
    """The data as `count` segments of all types, some of them empty."""
    kinds = (bytes, bytearray, memoryview)
    luck = chance(len(data))
    cuts = [0, *sorted(luck.randint(0, len(data)) for _ in range(count - 1)), len(data)]
    return [
        kinds[n % 3](data[start:end]) for n, (start, end) in enumerate(itertools.pairwise(cuts))
    ]


# Connections, and places where they arrive ----------------------------------------------------


class End:
    """One end of a connection: waits are bounded, and what it returns is checked."""

    def __init__(self, connection: Connection, patience: float) -> None:
        self.connection = connection
        self.patience = patience

    async def send(self, *messages: bytes) -> None:
        """Sends a batch of messages of one segment each."""
        await self.send_batch([[message] for message in messages])

    async def send_batch(self, messages: Sequence[Segments]) -> None:
        await soon(self.connection.send(messages), "send", self.patience)

    async def receive(self) -> list[bytes]:
        """Copies of what one `receive` returns."""
        messages = await soon(self.connection.receive(), "receive", self.patience)
        assert len(messages) > 0, "receive returned no message"
        for message in messages:
            assert isinstance(message, (bytes, memoryview)), f"received a {type(message)}"
            assert len(message) == memoryview(message).nbytes, "a view must be one of bytes"
        return [bytes(message) for message in messages]

    async def read(self, count: int) -> list[bytes]:
        """The next `count` messages; more at once is a mistake."""
        got: list[bytes] = []
        while len(got) < count:
            got += await self.receive()
        assert len(got) == count, f"received {len(got)} messages, but only {count} were sent"
        return got

    async def rest(self) -> list[bytes]:
        """The messages that arrive before the end. The end stays the end."""
        got: list[bytes] = []
        with contextlib.suppress(ConnectionLost):
            while True:
                got += await self.receive()
                assert len(got) < 100_000, "received more than was ever sent"
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                await self.receive()
        with pytest.raises(ConnectionLost):
            await self.send(b"after the end")
        return got

    async def answers(self, message: bytes = b"are you there?") -> None:
        """Checks that the other end echoes."""
        await carries(self, self, message)

    async def aclose(self) -> None:
        await soon(self.connection.aclose(), "aclose of a connection", self.patience)


Pair = tuple[End, End]


async def carries(source: End, sink: End, message: bytes = b"are you there?") -> None:
    """Checks that a message gets from one end to the other, or back from one that echoes."""
    await source.send(message)
    assert await sink.read(1) == [message]


class Place:
    """A listener that is being served, unless told otherwise."""

    def __init__(self, listener: Listener, patience: float) -> None:
        self.listener = listener
        self.address: str = listener.address
        self.patience = patience
        self.accepted: asyncio.Queue[End] = asyncio.Queue()
        self.serving: asyncio.Task[None] | None = None

    def serve(self, handler: Handler | None = None) -> None:
        """Serves in a task; by default connections are kept in `accepted`."""
        self.serving = asyncio.ensure_future(self.listener.serve(handler or self.keep))

    async def keep(self, connection: Connection) -> None:
        self.accepted.put_nowait(End(connection, self.patience))
        await asyncio.get_running_loop().create_future()

    async def next(self, within: float | None = None) -> End:
        """The next connection that has come in."""
        seconds = self.patience if within is None else within
        return await soon(self.accepted.get(), "a handler to start", seconds)

    async def stop(self) -> None:
        """Cancels `serve`, and waits for it; it must not have failed."""
        if self.serving is not None:
            await cancelled(self.serving, "serve", self.patience)
            if not self.serving.cancelled():
                self.serving.result()

    async def aclose(self) -> None:
        await soon(self.listener.aclose(), "aclose of a listener", self.patience)


class Site:
    """The listeners and connections of one test; what it has made is closed at its end."""

    def __init__(self, suite: TransportSuite, folder: Path) -> None:
        self.suite = suite
        self.patience: float = suite.patience
        self.transport: Transport = suite.transport()
        self.credentials: Tls | None = suite.credentials()
        self.turned: bool = False
        self._folder = folder
        self._places: list[Place] = []
        self._ends: list[End] = []
        self._common: Place | None = None

    def address(self) -> str | None:
        """A fresh address to listen at."""
        folder = self._folder / str(len(list(self._folder.iterdir())))
        folder.mkdir(mode=0o700)
        return self.suite.address(folder)

    async def listen(
        self,
        handler: Handler | None = None,
        *,
        at: str | EllipsisType | None = ...,
        tls: Tls | EllipsisType | None = ...,
        serve: bool = True,
    ) -> Place:
        """Opens a listener, at a fresh address unless told otherwise, and serves it."""
        address = self.address() if at is ... else at
        credentials = self.credentials if tls is ... else tls
        listening = self.transport.listen(address, credentials=credentials)
        place = Place(await soon(listening, "listen", self.patience), self.patience)
        self._places.append(place)
        if serve:
            place.serve(handler)
        return place

    async def dial(
        self, address: str, *, tls: Tls | EllipsisType | None = ..., timeout: float = 30.0
    ) -> End:
        credentials = self.credentials if tls is ... else tls
        dialling = self.transport.connect(address, credentials=credentials, timeout=timeout)
        end = End(await soon(dialling, "connect", self.patience), self.patience)
        self._ends.append(end)
        return end

    async def dial_alone(self, address: str) -> End:
        """Dials for somebody who closes the connection, maybe on a loop of their own."""
        options: dict[str, Any] = {"credentials": self.credentials, "timeout": self.patience}
        return End(await self.transport.connect(address, **options), self.patience)

    async def link(self, place: Place | None = None, *, strangers: bool = False) -> Pair:
        """Both ends of a new connection: the one that dialled, the one that was accepted.

        It is the other way round for tests of a `pair` whose accepted end comes first.

        Args:
            strangers: leave the limits of what they accept as low as they are at first.
        """
        if place is None:
            place = self._common = self._common or await self.listen()
        dialled, accepted = await self.dial(place.address), await place.next()
        if not strangers:
            for end in (dialled, accepted):
                end.connection.receive_limit = end.connection.max_message_size
        return (accepted, dialled) if self.turned else (dialled, accepted)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for a condition that nothing announces."""
        await until(condition, what, self.patience)

    async def aclose(self) -> None:
        for end in self._ends:
            await end.aclose()
        for place in self._places:
            await place.stop()
            await place.aclose()


class Flood:
    """Sends numbered messages until it is stopped.

    Attributes:
        taken: how many messages `send` has taken, that is: returned for.
    """

    def __init__(self, end: End) -> None:
        self.taken: int = 0
        self._connection = end.connection
        self._stopping = False
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._send())
        # How it ends is of interest where it is asked for.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _send(self) -> None:
        while not self._stopping and self.taken * MESSAGE <= BOUND:
            await self._connection.send([[numbered(self.taken)]])
            self.taken += 1

    async def stalls(self) -> None:
        """Waits until no message has been taken for a while: nothing tells that `send` waits."""
        before = idle = 0
        while idle < (1 if self.taken else 10):
            await asyncio.sleep(0.1)
            if self.taken == before:  # it may have been the whole process that did not get on
                await turns(50)
            idle = idle + 1 if self.taken == before else 0
            before = self.taken
            if self.task.done():
                self.task.result()
                pytest.fail(f"send took {BOUND} bytes while nobody received")

    def ebb(self) -> None:
        """Has the flood end after the present message."""
        self._stopping = True

    def sent(self) -> list[bytes]:
        return [numbered(number) for number in range(self.taken)]

    async def stop(self, receiver: End) -> None:
        """Has the flood end, and checks that all of it arrives."""
        self.ebb()
        got: list[bytes] = []
        while not self.task.done() or len(got) < self.taken:
            if len(got) <= self.taken:
                got += await receiver.receive()
            else:  # the last one is there, so that its `send` need only return
                await soon(asyncio.wait([self.task]), "send", receiver.patience)
        self.task.result()
        compare(got, self.sent())


class Reader:
    """Has one batch of messages received, or all of them pumped, in a task."""

    def __init__(self, end: End, how: str = "pump") -> None:
        self.messages: list[bytes] = []
        self.how: str = how
        self.end: End = end
        pump = end.connection.pump(self.take) if how == "pump" else self._receive()
        self.task: asyncio.Task[None] = asyncio.ensure_future(pump)

    async def _receive(self) -> None:
        self.take(await self.end.connection.receive())

    def take(self, messages: Sequence[bytes | memoryview]) -> None:
        assert messages, "nothing was given"
        self.messages += [bytes(message) for message in messages]

    async def stop(self) -> list[bytes]:
        """Cancels it; returns what was given for all that."""
        await cancelled(self.task, self.how, self.end.patience)
        if not self.task.cancelled():
            self.task.result()
            assert self.how == "receive", "a cancelled pump returns"
        return self.messages

    async def lost(self) -> None:
        """Checks that it ends with the connection."""
        await lost(self.task, self.how, self.end.patience)


async def lost(task: asyncio.Future[Any], what: str, seconds: float) -> None:
    """Checks that something that waits is told that the connection has ended."""
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        pytest.fail(f"{what} still waits {seconds:g} s after the connection has ended")
    with pytest.raises(ConnectionLost):
        task.result()


async def echo(connection: Connection) -> None:
    """A handler that sends everything back until the connection ends."""
    connection.receive_limit = connection.max_message_size
    with contextlib.suppress(ConnectionLost):
        while True:
            await connection.send([[message] for message in await connection.receive()])


async def failing(attempt: Awaitable[Any], reason: str | None = None) -> None:
    """Checks that an attempt to connect or to listen fails, and says what happened."""
    with pytest.raises(ConnectFailed) as raised:
        await attempt
    error = raised.value
    assert str(error), "ConnectFailed says nothing"
    assert reason in (None, error.reason), f"reason is {error.reason!r}, not {reason!r}: {error}"


async def outcome(dialling: Awaitable[End]) -> End | ConnectFailed:
    """The outcome of an attempt that may succeed or fail."""
    try:
        return await dialling
    except ConnectFailed as error:
        assert str(error), "ConnectFailed says nothing"  # noqa: PT017
        return error


async def _in_a_thread(work: Callable[..., bool], *args: Any) -> bool:
    return await asyncio.to_thread(work, *args)


async def _here(work: Callable[..., bool], *args: Any) -> bool:
    return work(*args)


THREADS = {"another thread": _in_a_thread, "its own thread": _here}


def send_now(connection: Connection, batch: Sequence[Segments]) -> bool:
    """Sends past `send` if that is possible, and says whether it was."""
    possible = connection.can_send_now()
    if possible:
        connection.send_now(batch)
    return possible


# Addresses, and sockets of strangers ----------------------------------------------------------


def host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host, if the address is one of a network."""
    try:
        parts = urlsplit(address)
        assert parts.port != 0, f"{address} has no port"
        return ipaddress.ip_address(
            "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        )
    except ValueError:
        return None


def place_of(address: str) -> tuple[str, int] | str:
    """Host and port, or the path of a Unix socket; skips the test if an address says neither."""
    parts = urlsplit(address)
    with contextlib.suppress(ValueError):
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    if not parts.path or parts.netloc:
        pytest.skip(f"{address} does not say which socket is behind it")
    return parts.path


def stranger(address: str) -> socket.socket:
    """A socket of the family that an address needs."""
    place = place_of(address)
    if isinstance(place, str):
        sock = socket.socket(socket.AF_UNIX)
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
    sock.setblocking(False)
    return sock


def listening(address: str) -> tuple[socket.socket, str]:
    """A socket that listens beside a place that is taken, and its address."""
    sock, place = stranger(address), place_of(address)
    sock.bind(f"{place}x" if isinstance(place, str) else (place[0], 0))
    sock.listen()
    if isinstance(place, str):
        return sock, f"{address}x"
    parts = urlsplit(address)
    netloc = parts.netloc.removesuffix(f":{place[1]}") + f":{sock.getsockname()[1]}"
    return sock, urlunsplit(parts._replace(netloc=netloc))


# Credentials ----------------------------------------------------------------------------------


def throwaway_tls() -> Tls:
    """Returns TLS with a certificate made now, which whoever dials takes: for `credentials`."""
    from wool._security.certificates import throwaway  # it needs the extra `tls`

    return ThrowawayChannel(throwaway())


class Authority:
    """An authority in a new folder, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        from wool._security.certificates import make_authority  # as above

        make_authority(folder, 2)

    def signed(self, *hosts: str, days: int = 2) -> Sequence[Path]:
        """Makes a certificate for the hosts; returns its path, and that of its key."""
        name = f"n{len(list(self.folder.iterdir()))}"
        from wool._security.certificates import make_certificate  # as above

        make_certificate(self.folder, name, hosts, days)
        return self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"

    def trusting(self, signed: Sequence[Path], name: str | None = NAME) -> Tls:
        """TLS that shows a certificate, and trusts those of this authority."""
        return MutualChannel(str(self.folder / "ca.pem"), *map(str, signed), name=name)


async def unheard(site: Site, place: Place, credentials: Tls | None) -> None:
    """Checks that nobody gets in at a place with these credentials."""
    met = await outcome(site.dial(place.address, tls=credentials, timeout=2.0))
    if isinstance(met, End):  # this side may have believed in it for a moment
        with contextlib.suppress(ConnectionLost):
            await met.send(b"let me in" * 100)
        assert await met.rest() == []
    assert place.accepted.empty(), "the handler has got a connection that must not be"


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class TransportSuite:
    """Tests what `wool.abc` promises of transports; subclass it in a test module.

    Override `transport`, and `address` if the transport cannot choose where to listen. The
    values of one instance must fit those of another instance in another process: tests start some.

    Attributes:
        in_process: whether connections cannot leave this process; then no other one is started.
        patience: seconds that anything may take before it counts as hanging.
    """

    in_process: bool = False
    patience: float = 10.0

    def transport(self) -> Transport:
        """Makes the transport; called once for each test."""
        raise NotImplementedError("override transport() to make the transport that is tested")

    def address(self, tmp_path: Path) -> str | None:
        """Where to listen; None, the default, if the transport is to choose.

        Called for each listener, with a new, empty directory of mode 0700.
        """
        return None

    def credentials(self) -> Tls | None:
        """How connections are secured; None, the default, if they are not."""
        return None

    @pytest_asyncio.fixture(loop_scope="function")
    async def site(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
        """Checks, besides, that tests leave no tasks behind and log nothing that alarms."""
        async with tidy(caplog, self.patience):
            site = Site(self, tmp_path)
            yield site
            await site.aclose()

    @pytest_asyncio.fixture(loop_scope="function", params=["dialled", "accepted"])
    async def pair(self, request: pytest.FixtureRequest, site: Site) -> Pair:
        """Both ends of a connection, for a test that treats them differently: each comes first."""
        site.turned = request.param == "accepted"
        return await site.link()

    # Messages ---------------------------------------------------------------------------------

    @remedy(
        "Frame messages by their length, and accept empty ones. Set the limits of the library "
        "above `max_message_size`, and check the sizes of all messages before you send the first."
    )
    async def test_sizes(self, pair: Pair) -> None:
        """Messages of all sizes up to `max_message_size`, at least 512 KiB, arrive as they are.

        Of a batch with a larger one `MessageTooLarge` sends nothing, and the connection goes on.
        """
        sent = [noise(size) for size in SIZES]
        sender, receiver = pair
        most = sender.connection.max_message_size
        assert most >= 512 * KIB, f"max_message_size is {most}"
        for message in sent:
            await sender.send(message)
            compare(await receiver.read(1), [message])
        batch = [*sent, noise(min(most, BOUND)), b"next"]
        _, got = await asyncio.gather(sender.send(*batch), receiver.read(len(batch)))
        compare(got, batch)
        too_large = [bytes(MIB)] * (most // MIB + 1)
        for segments in ([[b"none"], too_large], [too_large, [b"of"]], [[b"it"], too_large]):
            with pytest.raises(MessageTooLarge):
                await sender.send_batch(segments)
        await sender.send(b"this")
        assert await receiver.read(1) == [b"this"]

    @remedy(
        "Use one queue in each direction. Join segments, or write them one after the other; mind "
        "views of other items than bytes. An empty batch is no message: send nothing for it."
    )
    async def test_order(self, pair: Pair) -> None:
        """Messages arrive in order, each as its segments in a row, however they are batched."""
        sent = [b"%d" % number for number in range(3000)]
        sent[::100] = [noise(size) for size in (*SIZES, 17) for _ in range(3)]

        async def send(sender: End) -> None:
            rest, luck = sent, chance(1)
            while rest:
                count = luck.choice((0, 1, 1, 2, 3, 30, 300))
                batch = [pieces(data, luck.choice((1, 2, 3, 40))) for data in rest[:count]]
                await sender.send_batch(batch)
                rest = rest[count:]
            await sender.send_batch([[], [b"", b""], (b"tu", b"ple")])

        sender, receiver = pair
        _, got = await asyncio.gather(send(sender), receiver.read(len(sent) + 3))
        compare(got, [*sent, b"", b"", b"tuple"])

    @remedy(
        "Copy what is still queued when `send` returns, or let it wait; release views. Copy out of "
        "buffers that you read into again, or give them away."
    )
    async def test_buffers(self, pair: Pair) -> None:
        """Nobody else has what was sent, once `send` has returned, or what `receive` returned."""

        async def send(connection: Connection, data: bytearray) -> None:
            await connection.send([[data, memoryview(data)]] * 3)
            data[:] = bytes(len(data))
            data.clear()  # raises if there is a view of it

        sender, receiver = pair
        results: list[tuple[bytes, bytes | memoryview]] = []
        for size in (10, 4096, 100_000, 256 * KIB, *range(0, 600, 10), 70_000, 4000):
            sending = send(sender.connection, bytearray(noise(size)))
            await soon(sending, "send", self.patience)
            count = len(results) + 3
            while len(results) < count:
                receiving = receiver.connection.receive()
                got = await soon(receiving, "receive", self.patience)
                results += [(bytes(message), message) for message in got]
            compare([copy for copy, _ in results[-3:]], [noise(size) * 2] * 3)
        changed = [copy for copy, got in results if bytes(got) != copy]
        assert not changed, "what receive returned has changed since"

    @remedy(
        "Compare the announced length with `receive_limit` before you read or allocate, for each "
        "message; do not hand it to the library once for all."
    )
    async def test_receive_limit(self, site: Site) -> None:
        """Messages of 4096 bytes are accepted, until the limit is raised; larger ones end it."""
        others = await site.link(strangers=True)
        for dialler_sends in (True, False):
            ends = await site.link(strangers=True)
            sender, receiver = ends if dialler_sends else ends[::-1]
            assert receiver.connection.receive_limit == 4096
            await sender.send(*[noise(4096)] * 10)
            compare(await receiver.read(10), [noise(4096)] * 10)
            if dialler_sends:
                receiver.connection.receive_limit = 100_000
                await sender.send(noise(100_000), noise(99_999))
                compare(await receiver.read(2), [noise(100_000), noise(99_999)])
                limits = [end.connection.receive_limit for end in (sender, *others)]
                assert limits == [4096] * 3, "one limit is raised, and others have changed"
            await sender.send(noise(receiver.connection.receive_limit + 1))
            assert await receiver.rest() == [], "what is larger than the limit was accepted"
            assert await sender.rest() == []
        await carries(*others)

    # Back-pressure, and cancelling what waits for it ------------------------------------------

    @remedy(
        "Bound what is queued, on both sides, and let `send` wait until there is room again. Let "
        "no lock, queue or task serve both directions, or several connections."
    )
    async def test_back_pressure(self, site: Site, pair: Pair) -> None:
        """`send` waits for a peer that does not receive, after 64 MiB at the latest.

        The other direction goes on meanwhile, and so do other connections.
        """
        (sender, receiver), (one, other) = pair, await site.link()
        flood = Flood(sender)
        await flood.stalls()
        for source, sink in ((receiver, sender), (one, other), (other, one)):
            for _ in range(10):
                await carries(source, sink)
        await flood.stop(receiver)
        await carries(sender, receiver)

    @pytest.mark.parametrize("how", ["receive", "pump"])
    @remedy(
        "Wait first, and take messages off the queue where nothing can be cancelled any more. Let "
        "the cancellation pass, and do not close the connection for it."
    )
    async def test_a_cancelled_read(self, pair: Pair, how: str) -> None:
        """A cancelled `receive` or `pump` loses nothing, whenever the cancel comes."""
        sender, receiver = pair
        luck, sent, got = chance(2), list[bytes](), list[bytes]()
        for number in range(300):
            reader = Reader(receiver, how)
            await turns(luck.randrange(4))
            batch = [
                b"%d," % number * luck.choice((1, 1, 1, 120_000)) for _ in range(1 + number % 2)
            ]
            sending = asyncio.ensure_future(sender.send(*batch))
            sent += batch
            await turns(luck.randrange(16))
            if number % 10 == 0:  # what other threads do takes time, not turns of this loop
                await asyncio.sleep(luck.random() / 300)
            got += await reader.stop()
            await sending
            # Now and then the rest is left, so that the next one need not wait.
            if len(got) < len(sent) and (number % 3 or number == 299):
                got += await receiver.read(len(sent) - len(got))
        compare(got, sent)

    @remedy(
        "Write each message in one piece, or finish it in spite of the cancellation; and do not "
        "let that end the connection before what was sent earlier has gone."
    )
    async def test_a_cancelled_send(self, pair: Pair) -> None:
        """Of a cancelled `send` whole messages arrive, from the first one on, and all before."""
        sender, receiver = pair
        await sender.send(b"before")
        batch = [numbered(number) for number in range(BOUND // MESSAGE)]
        sending = sender.connection.send([[message] for message in batch])
        task = asyncio.ensure_future(sending)
        await turns(3)
        await cancelled(task, "send", self.patience)
        _, got = await asyncio.gather(sender.aclose(), receiver.rest())
        compare(got, [b"before", *batch][: max(1, len(got))])

    @pytest.mark.parametrize("where", THREADS)
    @remedy(
        "Queue what a peer does not take at once, have the loop write it, and answer "
        "`can_send_now` with no while anything is queued. Swallow the error of a write, and note "
        "that the connection has ended."
    )
    async def test_sending_now(self, site: Site, pair: Pair, where: str) -> None:
        """`send_now` sends in order with `send`, though a peer may not take all of it at once.

        If the peer is gone, `receive` alone tells.
        """
        run = THREADS[where]

        sender, receiver = pair
        connection, sent = sender.connection, list[bytes]()
        if not await run(connection.can_send_now):
            pytest.skip(f"cannot send_now from {where}")
        for number in range(300):
            batch = [[b"%d" % number, b"."], [b"and", bytes(number)]]
            if not (number % 3 and await run(send_now, connection, batch)):
                await sender.send_batch(batch)
            sent += [b"".join(segments) for segments in batch]
        while await run(send_now, connection, [[numbered(len(sent))]]):
            sent.append(numbered(len(sent)))
            assert len(sent) < 1000, "it can send without end"
            await turns(2)
        compare(await receiver.read(len(sent)), sent)
        await site.until(connection.can_send_now, "the rest of a send_now")
        flood = Flood(sender)
        await flood.stalls()
        assert not await run(connection.can_send_now)
        await flood.stop(receiver)
        await receiver.aclose()
        for _ in range(3):
            await run(send_now, connection, [[b"to nobody"]])
        with pytest.raises(ConnectionLost):
            await sender.receive()
        await run(send_now, connection, [[b"to nobody"]])

    @remedy(
        "Give what has arrived before as well, and what was held back as nobody received; then "
        "each batch as it comes; then raise."
    )
    async def test_pumping(self, pair: Pair) -> None:
        """`pump` gives everything, from what has arrived before to what came before the end."""
        sender, receiver = pair
        await carries(sender, receiver)
        flood = Flood(sender)
        await flood.stalls()
        flood.ebb()
        reader = Reader(receiver)
        await soon(flood.task, "send to a peer that pumps", self.patience)
        late = [b"late"] + [b"%d" % number * (1 + number % 3 * 9000) for number in range(99)]
        for message in late:
            await sender.send(message)
            await turns(len(message) % 3)
        await sender.aclose()
        await reader.lost()
        compare(reader.messages, flood.sent() + late)
        assert await receiver.rest() == []

    @remedy("Pass on what `take` raises, and leave the connection as it is.")
    async def test_what_taking_raises(self, pair: Pair) -> None:
        """Ends `pump`, even one that is being cancelled, and nothing else."""

        def refuse(cancelling: bool, messages: Sequence[bytes | memoryview]) -> None:
            if cancelling:
                pumping.cancel()
            raise LookupError("no use for this")

        sender, receiver = pair
        for cancelling in (False, True):
            pumping = asyncio.ensure_future(receiver.connection.pump(partial(refuse, cancelling)))
            await turns(3)
            await sender.send(b"of no use")
            with pytest.raises(LookupError, match="no use for this"):
                await soon(pumping, "pump that has nobody to give to", self.patience)
            await carries(sender, receiver)
            await carries(receiver, sender)

    # How connections end ----------------------------------------------------------------------

    @remedy(
        "Send what is queued before you close, waiting for a while until the peer has taken it, "
        "and return all that has arrived before you raise."
    )
    async def test_what_was_sent_before_closing(self, site: Site, pair: Pair) -> None:
        """All that `send` has taken before `aclose` arrives; then `receive` raises.

        So it is with a peer that begins to receive only then.
        """
        sent = [b"%d" % number for number in range(50)]

        async def send_and_close(connection: Connection) -> None:
            await connection.send([[message] for message in sent])
            await connection.aclose()

        closing, other = pair
        await soon(send_and_close(closing.connection), "aclose", self.patience)
        compare(await other.rest(), sent)
        assert await closing.rest() == []
        closing, other = await site.link()
        flood = Flood(closing)
        await flood.stalls()
        taken = flood.taken
        _, got = await asyncio.gather(closing.aclose(), other.rest())
        assert len(got) >= taken, "messages are lost"
        compare(got, [numbered(number) for number in range(len(got))])
        await asyncio.gather(flood.task, return_exceptions=True)

    @pytest.mark.parametrize("how", ["receive", "pump"])
    @remedy(
        "Wake who waits when the connection ends, whichever side ends it. Do the work of `aclose` "
        "in the first call, and let the others wait for it."
    )
    async def test_closing_ends_what_waits(self, site: Site, pair: Pair, how: str) -> None:
        """`aclose` ends what waits for messages, at both ends, and what begins to later on.

        It may be called by several at once, at both ends at once, and once more.
        """
        for at_once, (closing, other) in ((False, pair), (True, await site.link())):
            readers = [Reader(end, how) for end in (closing, other)]
            await turns(5)
            ends = (closing, other, closing, other) if at_once else (closing,)
            await asyncio.gather(*(end.aclose() for end in ends))
            for reader in readers:
                await reader.lost()
                assert reader.messages == []
            for end in (closing, other):
                await Reader(end, how).lost()
                await end.aclose()
                assert await end.rest() == []
                await end.aclose()

    @pytest.mark.parametrize("closes", ["sender", "receiver"])
    @remedy(
        "Watch for the end of the connection while `send` waits for room. Bound the time that "
        "`aclose` waits for the peer, and abort the connection then. Note that it is closing only "
        "where that can be repeated, or shield the work."
    )
    async def test_closing_while_send_waits(self, pair: Pair, closes: str) -> None:
        """A `send` that waits raises `ConnectionLost`; a peer that takes nothing is given up soon.

        A cancelled `aclose` can be repeated.
        """
        sender, receiver = pair
        closing, other = (sender, receiver) if closes == "sender" else (receiver, sender)
        flood = Flood(sender)
        await flood.stalls()
        attempt = asyncio.ensure_future(closing.connection.aclose())
        await turns(2)
        await cancelled(attempt, "aclose", self.patience)
        await closing.aclose()
        await lost(flood.task, "send", self.patience)
        await other.rest()

    @remedy("Keep what `extra` tells when the connection is made; do not ask the socket later.")
    async def test_what_is_known(self, site: Site) -> None:
        """`extra` returns values of the right types, or the default, also after the end."""
        ends, absent = await site.link(), object()
        for ended in (False, True):
            if ended:
                await ends[0].aclose()
                await ends[1].rest()
            for extra in (end.connection.extra for end in ends):
                assert extra("no such attribute") is None
                assert extra("no such attribute", absent) is absent
                for attribute, kind in {"peer": str, "uid": int, "same_host": bool}.items():
                    value = extra(attribute, absent)
                    assert value is absent or isinstance(value, kind), f"{attribute} is {value!r}"

    # Places -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["given", "chosen", "port 0", "wildcard"])
    @remedy(
        "Make `address` of the port and host that the socket has got, or of a name of this "
        "machine, such as that of the default route: never of a wildcard. Without an address "
        "listen at loopback or in a private directory; remove what you make."
    )
    async def test_addresses(self, site: Site, kind: str) -> None:
        """Each listener has an address of its own that can be dialled; port 0 is one that is free.

        A place that a transport chooses is on this machine alone, and is removed. A wildcard is
        refused, or told as one place.
        """
        parts = urlsplit((await site.listen()).address)
        host = host_of(parts.geturl())
        if kind in ("port 0", "wildcard") and host is None:
            pytest.skip("it is not a transport for networks")
        with tempfile.TemporaryDirectory(prefix="w") as folder, pytest.MonkeyPatch.context() as m:
            m.setattr(tempfile, "tempdir", folder)
            name = parts.netloc.rpartition(":")[0]
            if kind == "wildcard":
                name = "[::]" if ":" in name else "0.0.0.0"  # noqa: S104
            free = parts._replace(netloc=f"{name}:0").geturl()
            wanted = {"given": site.address, "chosen": lambda: None}.get(kind, lambda: free)
            try:
                places = [await site.listen(echo, at=wanted()) for _ in range(2)]
            except ConnectFailed:
                assert kind == "wildcard"
                return
            assert places[0].address != places[1].address
            for place in places:
                scheme, separator, rest = place.address.partition("://")
                assert all((scheme, separator, rest)), f"{place.address!r} is not scheme://place"
                at = host_of(place.address)
                wild = rest.startswith("*") or (at is not None and at.is_unspecified)
                assert not wild, f"{place.address} is a wildcard"
                local = kind != "chosen" or at is None or at.is_loopback
                assert local, f"others can reach {place.address}"
                if kind != "wildcard":  # no firewall lets us say that it can be dialled
                    await (await site.dial(place.address)).answers()
                await place.stop()
                await place.aclose()
            assert os.listdir(folder) == []

    @remedy(
        "Catch the errors of parsing and of looking up names as well. Do not reuse ports "
        "(SO_REUSEPORT), and do not remove sockets that are in use."
    )
    async def test_what_cannot_be_had(self, site: Site) -> None:
        """An address that makes no sense, and a place that is taken, are a `ConnectFailed`."""
        place = await site.listen(echo)
        for address in (place.address + "x", place.address.partition("://")[0] + "://"):
            await failing(site.dial(address))
        await failing(site.listen(at=place.address))
        await (await site.dial(place.address)).answers()

    @remedy(
        "Close only what listens, and remove its file; connections end by themselves. Map the "
        "errors of the library to `ConnectFailed`; do not retry."
    )
    async def test_closing_a_listener(self, site: Site) -> None:
        """When a listener is closed nobody new gets in, who is in stays, and its place is free."""
        place = await site.listen()
        one, other = await site.link(place)
        await asyncio.gather(place.aclose(), place.aclose())
        await place.aclose()
        await failing(site.dial(place.address), "refused")
        await carries(one, other)
        await carries(other, one)
        await place.stop()
        unserved = await site.listen(at=place.address, serve=False)
        await unserved.aclose()
        await failing(site.dial(place.address), "refused")
        again = await site.listen(echo, at=place.address)
        await (await site.dial(again.address)).answers()

    @remedy("Bound the whole of `connect`, with names and handshakes, by `timeout`.")
    async def test_nobody_answers(self, site: Site) -> None:
        """`connect` takes no longer than its timeout, if it waits for an answer at all."""
        place = await site.listen(serve=False)
        addresses = [place.address]
        with contextlib.ExitStack() as stack:
            if not self.in_process:
                sock, address = listening(place.address)
                stack.enter_context(sock)
                addresses.append(address)
            for address in addresses:
                met = await outcome(site.dial(address, timeout=0.3))
                assert isinstance(met, End) or met.reason == "timeout", f"{met.reason}: {met}"

    @pytest.mark.parametrize("error", [None, RuntimeError, asyncio.CancelledError, ConnectionLost])
    @remedy(
        "Serve each connection in its own task; raise the backlog and other limits of the library. "
        "Catch what a handler raises, log it, and go on. Await `aclose` of the connection when its "
        "handler has ended."
    )
    async def test_a_handler_that_ends(
        self, site: Site, error: type[BaseException] | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of two hundred handlers at once, one that ends closes its connection, and no other.

        All that was sent before arrives.
        """

        async def handle(connection: Connection) -> None:
            await connection.send([[b"wel"], [b"come"]])
            if bytes((await connection.receive())[0]) == b"stay":
                await connection.send([[b"stay"]])
                await echo(connection)
            await connection.send([[b"good"], [b"bye"]])
            if error is not None:
                raise error("on purpose")

        place = await site.listen(handle)

        async def visit(number: int) -> End:
            end = await site.dial(place.address)
            assert await end.read(2) == [b"wel", b"come"]
            await end.answers(b"stay")
            await end.answers(b"%d" % number)
            return end

        crowd = await asyncio.gather(*map(visit, range(200)))
        leaves = await site.dial(place.address)
        await leaves.send(b"leave")
        assert await leaves.rest() == [b"wel", b"come", b"good", b"bye"]
        await asyncio.gather(*(end.answers(bytes([n]) * 3000) for n, end in enumerate(crowd)))
        await visit(200)
        await place.stop()
        if error is not None:
            caplog.clear()  # it may well be logged

    @remedy("Keep the tasks of handlers; on leaving cancel them and await them.")
    async def test_cancelling_serve(self, site: Site) -> None:
        """Cancelling `serve` cancels the handlers, waits for them, and closes their connections."""
        started, ended = 0, 0

        async def handle(connection: Connection) -> None:
            nonlocal started, ended
            started += 1
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await turns(50)
                ended += 1

        place = await site.listen(handle)
        ends = [await site.dial(place.address) for _ in range(5)]
        await site.until(lambda: started == 5, "handlers to start")
        await place.stop()
        assert ended == 5, "serve has not waited for its handlers"
        for end in ends:
            assert await end.rest() == []

    @remedy("Close what has been opened so far when an exception passes, a cancellation included.")
    async def test_a_cancelled_connect(self, site: Site) -> None:
        """A cancelled `connect` leaves nothing open, whenever the cancel comes."""
        place = await site.listen(echo)
        first = await site.dial(place.address)
        await first.answers()
        gc.collect()  # or what other tests have left may go meanwhile
        before, luck = descriptors(), chance(3)
        for attempt in range(60):
            dialling = asyncio.ensure_future(site.dial_alone(place.address))
            await turns(attempt // 2)
            if attempt % 2:
                await asyncio.sleep(luck.random() / 100)
            await cancelled(dialling, "connect", self.patience)
            if not dialling.cancelled():
                await dialling.result().aclose()

        # Some may still be on their way in. A library may close others when it has more to do.
        async def closed() -> None:
            while descriptors() > before + 2:
                await first.answers()

        await soon(closed(), "what was opened to be closed", self.patience)

    @remedy(
        "Keep nothing in the transport that belongs to a loop; make it for each connection. Let "
        "that own a task that does not end by being cancelled, or use callbacks."
    )
    async def test_loops_of_several_threads(self, site: Site) -> None:
        """One transport serves event loops in several threads, for dialling and for listening.

        `asyncio.run` cancels all tasks at its end; what is connected goes on until it is closed.
        """
        place = await site.listen(echo)
        barrier, addresses = threading.Barrier(4), [site.address() for _ in range(4)]
        lines = [place.address]

        async def talk(address: str) -> None:
            end = await site.dial_alone(address)
            for number in range(50):
                await end.answers(b"%d" % number)
            await end.aclose()

        async def visit(number: int) -> None:
            listener = await site.transport.listen(addresses[number], credentials=site.credentials)
            own = Place(listener, self.patience)
            own.serve(echo)
            lines.append(own.address)
            await asyncio.to_thread(barrier.wait, self.patience)
            await asyncio.gather(*map(talk, lines))
            await asyncio.to_thread(barrier.wait, self.patience)
            await own.stop()
            await own.aclose()
            end = await site.dial_alone(place.address)
            await end.answers()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            for _ in range(3):
                await end.answers()
            await end.aclose()

        threads = (asyncio.to_thread(asyncio.run, visit(number)) for number in range(4))
        await soon(asyncio.gather(*threads), "four loops in threads", 3 * self.patience)

    @remedy(
        "Close sockets, channels and pools of threads with the last connection that needs them."
    )
    async def test_nothing_is_left(self, site: Site) -> None:
        """No descriptor and no thread is left once everything has been closed."""

        async def live() -> None:
            place = await site.listen()
            for number in range(3):
                ends = await site.link(place)
                await carries(*ends)
                await ends[number % 2].aclose()
                await ends[1 - number % 2].rest()
                await ends[1 - number % 2].aclose()
            await place.stop()
            await place.aclose()
            await failing(site.dial(place.address), "refused")

        await leaves_nothing(live, self.patience)

    # Peers in other processes, and strangers --------------------------------------------------

    @pytest.fixture
    def elsewhere(self) -> None:
        """Skips tests with peers that a transport within one process cannot have."""
        if self.in_process:
            pytest.skip("connections do not leave this process")

    @contextlib.asynccontextmanager
    async def _peer(self, site: Site, role: str) -> AsyncGenerator[tuple[Process, End]]:
        """A process that has dialled us, or that we have dialled; it echoes."""
        place = await site.listen()
        address = place.address if role == "dials" else site.address()
        async with Process(self, role=role, address=address) as peer:
            if role == "dials":
                end = await place.next(within=STARTING + self.patience)
            else:
                end = await site.dial(await peer.line())
            end.connection.receive_limit = end.connection.max_message_size
            await end.answers()
            yield peer, end

    async def play(self, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
        """In the other process: echoes on what it dials, or on what it accepts."""
        transport, credentials = self.transport(), self.credentials()
        address = order["address"]
        if order["role"] == "dials":
            await echo(await transport.connect(address, credentials=credentials, timeout=30))
        else:
            listener = await transport.listen(address, credentials=credentials)
            say(listener.address)
            await listener.serve(echo)

    @pytest.mark.parametrize("role", ["dials", "listens"])
    @pytest.mark.usefixtures("elsewhere")
    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped")
    @remedy(
        "Bound what is queued, and take a silent peer for slow, not for dead. Map the end of the "
        "stream and errors of the socket to `ConnectionLost` at once."
    )
    async def test_a_peer_that_is_stopped_and_killed(self, site: Site, role: str) -> None:
        """A peer that is stopped makes `send` wait, and loses nothing; a dead one is noticed."""
        async with self._peer(site, role) as (peer, end):
            peer.signal(signal.SIGSTOP)
            flood = Flood(end)
            await flood.stalls()
            peer.signal(signal.SIGCONT)
            await flood.stop(end)
            await end.answers()
            peer.signal(signal.SIGSTOP)
            flood, reader = Flood(end), Reader(end, "receive")
            await flood.stalls()
            peer.kill()
            await lost(flood.task, "send", min(PROMPTLY, self.patience))
            await reader.lost()
            await end.rest()

    @pytest.mark.parametrize("says", WORDS.values(), ids=WORDS)
    @pytest.mark.usefixtures("elsewhere")
    @remedy(
        "Handshake in the task of the connection, not where connections are accepted. Map what the "
        "library says of a wrong peer to `ConnectFailed` or `ConnectionLost`."
    )
    async def test_strangers(
        self, site: Site, says: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A stranger that says something else keeps nobody else from getting in.

        One that listens, says so and hangs up is no connection, or soon none.
        """
        place, loop = await site.listen(echo), asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for goes in (True, False, True, False):
                sock = stack.enter_context(stranger(place.address))
                await loop.sock_connect(sock, place_of(place.address))
                with contextlib.suppress(OSError):
                    await soon(loop.sock_sendall(sock, says), "sending", self.patience)
                if goes:
                    sock.close()
                await (await site.dial(place.address)).answers()
            await place.stop()
        caplog.clear()  # it may well be logged
        sock, address = listening(place.address)

        async def greet() -> None:
            while True:  # transports may try more than once
                peer, _ = await loop.sock_accept(sock)
                with peer, contextlib.suppress(OSError):
                    await loop.sock_sendall(peer, says)

        greeting = asyncio.ensure_future(greet())
        try:
            met = await outcome(site.dial(address))
            assert not isinstance(met, End) or await met.rest() == []
        finally:
            greeting.cancel()
            sock.close()

    # TLS as the credentials say, or no connection: for suites that have credentials -----------

    @pytest.fixture
    def ours(self, tmp_path: Path) -> Authority:
        """The authority that is trusted."""
        if self.credentials() is None:
            pytest.skip("the suite has no credentials")
        return Authority(tmp_path / "ours")

    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Authority:
        """Another one."""
        return Authority(tmp_path / "theirs")

    @remedy(
        "Never fall back: with credentials there is TLS, or no connection, and no handler starts "
        "before the handshake is done. Return the peer's certificate of the handshake in DER."
    )
    @pytest.mark.usefixtures("ours")
    async def test_with_tls_or_not_at_all(self, site: Site) -> None:
        """Where one side has credentials, and the other none, nobody gets in or hears anything.

        With TLS `extra("certificate")` is what the listener has, for the side that has dialled.
        """
        heard: list[bytes] = []

        async def handle(connection: Connection) -> None:
            while True:
                heard.extend(map(bytes, await connection.receive()))

        await unheard(site, await site.listen(), None)
        await unheard(site, await site.listen(handle, tls=None), site.credentials)
        assert heard == [], "a listener without TLS was talked to in clear"
        secured = throwaway_tls()
        certificate = secured.server_pem().certificate or b""
        der = ssl.PEM_cert_to_DER_cert(certificate.decode())
        for listens, dials, known in ((secured, ThrowawayChannel(), der), (None, None, None)):
            place = await site.listen(echo, tls=listens)
            end = await site.dial(place.address, tls=dials)
            await end.answers()
            assert end.connection.extra("certificate") == known

    @pytest.mark.parametrize("shows", ["name", "host", "other name", "other host", "other", "age"])
    @remedy(
        "Verify authority, dates, and `server_name` if there is one, else the host, as the "
        "contexts of `Tls` do; the reason is 'tls'."
    )
    async def test_who_is_trusted(
        self, site: Site, ours: Authority, theirs: Authority, shows: str
    ) -> None:
        """A listener that is not trusted is no connection; the reason is "tls"."""
        address = (await site.listen()).address
        host = "localhost" if "://localhost" in address else str(host_of(address))
        signed = {
            "name": lambda: ours.signed(NAME),
            "host": lambda: ours.signed(host),
            "other name": lambda: ours.signed("other.example", "localhost", "127.0.0.1"),
            "other host": lambda: ours.signed("other.example"),
            "other": lambda: theirs.signed(NAME),
            "age": lambda: ours.signed(NAME, days=0),
        }[shows]()
        place = await site.listen(tls=ours.trusting(signed))
        asked = ours.trusting(ours.signed("caller"), None if "host" in shows else NAME)
        dialling = site.dial(place.address, tls=asked)
        if shows in ("name", "host"):
            await carries(await dialling, await place.next())
        else:
            await failing(dialling, "tls")
            assert place.accepted.empty(), "the handler has got a connection that must not be"

    @remedy("Use `server_context` or `asks_client` of the credentials; start no handler before.")
    async def test_whoever_dials_has_to_show_a_certificate(
        self, site: Site, ours: Authority, theirs: Authority
    ) -> None:
        """If the listener asks, who dials must show a certificate that it trusts."""
        place = await site.listen(tls=ours.trusting(ours.signed(NAME)))
        await unheard(site, place, ProxyChannel(NAME, str(ours.folder / "ca.pem")))
        await unheard(site, place, ours.trusting(theirs.signed(NAME)))
        end = await site.dial(place.address, tls=ours.trusting(ours.signed("caller")))
        await carries(end, await place.next())

    @remedy("Ask the credentials anew for each connection, or use the context that does so.")
    async def test_certificates_that_are_replaced(self, site: Site, ours: Authority) -> None:
        """Certificates that are replaced hold for new connections; those that are open stay."""
        used = [ours.folder / "used.pem", ours.folder / "used-key.pem"]

        def use(*hosts: str) -> bytes:
            for target, source in zip(used, ours.signed(NAME, *hosts), strict=True):
                target.write_bytes(source.read_bytes())
            return ssl.PEM_cert_to_DER_cert(used[0].read_text())

        told = use()
        channel = ours.trusting(used)
        place = await site.listen(echo, tls=channel)
        ends: list[End] = []
        for host in ("another.example", "a-third.example"):
            ends.append(await site.dial(place.address, tls=channel))
            for end in ends:
                await end.answers()
            assert ends[-1].connection.extra("certificate") == told
            told = use(host)
