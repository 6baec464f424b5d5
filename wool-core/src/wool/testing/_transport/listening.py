"""Places to listen at, those who dial them, and the handlers of their connections."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import tempfile
import threading
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

import pytest

from wool.abc import ConnectFailed, Connection, ConnectionLost
from wool.testing._kit import descriptors, remedy, soon, turns
from wool.testing._transport.base import Base, End, Place, Site, chance

CROWD = 200


async def echo(connection: Connection) -> None:
    """A handler that sends everything back until the connection ends."""
    connection.receive_limit = connection.max_message_size
    try:
        while True:
            await connection.send([[message] for message in await connection.receive()])
    except ConnectionLost:
        pass


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


async def answered(end: End, message: bytes = b"are you there?") -> None:
    """Checks that the other end echoes."""
    await end.send(message)
    assert await end.read(1) == [message]


async def failing(attempt: Awaitable[Any]) -> ConnectFailed:
    """The error of an attempt to connect or to listen, which says what happened."""
    with pytest.raises(ConnectFailed) as raised:
        await attempt
    assert str(raised.value), "ConnectFailed says nothing"
    return raised.value


async def outcome(dialling: Awaitable[End]) -> End | ConnectFailed:
    """What comes of an attempt that may succeed or fail."""
    try:
        return await dialling
    except ConnectFailed as error:
        assert str(error), "ConnectFailed says nothing"  # noqa: PT017
        return error


async def refused(site: Site, address: str) -> None:
    error = await failing(site.dial(address))
    assert error.reason == "refused", f"reason is {error.reason!r}: {error}"


class Listening(Base):
    """Part of `TransportSuite`."""

    @remedy("Make `address` of the port and host that the socket has got, never of a wildcard.")
    async def test_addresses(self, site: Site) -> None:
        """Each listener has an address of its own that names one place and can be dialled."""
        places = [await site.listen(echo), await site.listen(echo)]
        assert places[0].address != places[1].address
        for place in places:
            scheme, separator, rest = place.address.partition("://")
            assert all((scheme, separator, rest)), f"{place.address!r} is not scheme://place"
            host = host_of(place.address)
            assert host is None or not host.is_unspecified, f"{place.address} is a wildcard"
            assert not rest.startswith("*"), f"{place.address} is a wildcard"
            await answered(await site.dial(place.address))

    @remedy(
        "Without an address listen at loopback or in a private directory; remove what you make."
    )
    async def test_a_place_of_its_choice(self, site: Site) -> None:
        """The place that a transport chooses is on this machine alone, and is removed."""
        with tempfile.TemporaryDirectory(prefix="w") as folder, pytest.MonkeyPatch.context() as m:
            m.setattr(tempfile, "tempdir", folder)
            places = [await site.listen_at(None, site.credentials) for _ in range(2)]
            assert places[0].address != places[1].address
            for place in places:
                host = host_of(place.address)
                assert host is None or host.is_loopback, f"others can reach {place.address}"
                place.serve(echo)
                await answered(await site.dial(place.address))
                await place.stop()
                await place.aclose()
            assert os.listdir(folder) == []

    @remedy("Ask the socket for its port, and put that in `address`.")
    async def test_any_port(self, site: Site) -> None:
        """Port 0 in an address of a network stands for one that is free."""
        parts = urlsplit((await site.listen()).address)
        if host_of(parts.geturl()) is None:
            pytest.skip("it is not a transport for networks")
        host = parts.netloc.rpartition(":")[0]
        address = parts._replace(netloc=f"{host}:0").geturl()
        places = [await site.listen_at(address, site.credentials) for _ in range(2)]
        assert places[0].address != places[1].address
        for place in places:
            assert urlsplit(place.address).port
            place.serve(echo)
            await answered(await site.dial(place.address))

    @remedy("Put a number or name of this machine in `address`, such as that of the default route.")
    async def test_a_wildcard(self, site: Site) -> None:
        """Who listens at all interfaces names one place for others to dial, or refuses to."""
        parts = urlsplit((await site.listen()).address)
        host = host_of(parts.geturl())
        if host is None:
            pytest.skip("it is not a transport for networks")
        wildcard = "0.0.0.0" if host.version == 4 else "[::]"  # noqa: S104
        address = parts._replace(netloc=f"{wildcard}:0").geturl()
        try:
            place = await site.listen_at(address, site.credentials)
        except ConnectFailed:
            return
        told = host_of(place.address)
        assert told is None or not told.is_unspecified, f"{place.address} is a wildcard"

    @remedy("Map the errors of the library to `ConnectFailed`; do not retry.")
    async def test_nobody_listens(self, site: Site) -> None:
        """Where nobody listens, `connect` fails at once with `ConnectFailed`, reason "refused"."""
        place = await site.listen()
        await place.aclose()
        await refused(site, place.address)

    @remedy("Catch the errors of parsing and of looking up names as well.")
    async def test_an_address_that_is_none(self, site: Site) -> None:
        """An address that makes no sense is a `ConnectFailed`, like any other failure."""
        place = await site.listen()
        for address in (place.address + "x", place.address.partition("://")[0] + "://"):
            await failing(site.dial(address))

    @remedy("Do not reuse ports (SO_REUSEPORT), and do not remove sockets that are in use.")
    async def test_a_place_that_is_taken(self, site: Site) -> None:
        """Who listens where somebody else does gets `ConnectFailed`, and disturbs nobody."""
        place = await site.listen(echo)
        await failing(site.listen_at(place.address, site.credentials))
        await answered(await site.dial(place.address))

    @remedy("Close the socket, and remove its file, in `aclose`.")
    async def test_a_place_is_free_again(self, site: Site) -> None:
        """After closing a listener its place is free, also if nobody has served."""
        place = await site.listen(echo)
        await answered(await site.dial(place.address))
        await place.stop()
        await place.aclose()
        for _ in range(2):
            place = await site.listen_at(place.address, site.credentials)
            await place.aclose()
        place = await site.listen_at(place.address, site.credentials)
        place.serve(echo)
        await answered(await site.dial(place.address))

    @remedy("Close only what listens; connections end by themselves.")
    async def test_closing_a_listener(self, site: Site) -> None:
        """When a listener is closed nobody new gets in, and who is in stays."""
        place = await site.listen()
        ours, theirs = await site.link(place)
        await asyncio.gather(place.aclose(), place.aclose())
        await place.aclose()
        await refused(site, place.address)
        for one, other in ((ours, theirs), (theirs, ours)):
            await one.send(b"still here")
            assert await other.read(1) == [b"still here"]
        await place.stop()

    @remedy("Bound the whole of `connect`, with names and handshakes, by `timeout`.")
    async def test_a_listener_that_does_not_answer(self, site: Site) -> None:
        """`connect` takes no longer than its timeout, also where nobody serves."""
        place = await site.listen(serve=False)
        met = await outcome(site.dial(place.address, timeout=0.2))
        assert isinstance(met, End) or met.reason == "timeout"

    @remedy("Await `aclose` of the connection when its handler has ended.")
    async def test_a_handler_that_returns(self, site: Site) -> None:
        """The connection of a handler that returns is closed, and what it has sent arrives."""

        async def handle(connection: Connection) -> None:
            await connection.send([[b"good"], [b"bye"]])

        end = await site.dial((await site.listen(handle)).address)
        assert await end.rest() == [b"good", b"bye"]

    @pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, ConnectionLost])
    @remedy("Catch what a handler raises, log it, close its connection, and go on.")
    async def test_a_handler_that_raises(
        self, site: Site, error: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        """When a handler raises, only its own connection ends."""

        async def handle(connection: Connection) -> None:
            if bytes((await connection.receive())[0]) == b"raise":
                raise error("on purpose")
            await connection.send([[b"fine"]])
            await echo(connection)

        place = await site.listen(handle)
        before, unlucky = await site.dial(place.address), await site.dial(place.address)
        await before.send(b"stay")
        assert await before.read(1) == [b"fine"]
        await unlucky.send(b"raise")
        assert await unlucky.rest() == []
        await answered(before)
        after = await site.dial(place.address)
        await after.send(b"come")
        assert await after.read(1) == [b"fine"]
        gc.collect()
        caplog.clear()  # it may well be logged

    @remedy("Keep the tasks of handlers; on leaving cancel them and await them.")
    async def test_cancelling_serve(self, site: Site) -> None:
        """Cancelling `serve` cancels the handlers, waits for them, and closes their connections."""
        started, ended = 0, 0

        async def handle(connection: Connection) -> None:
            nonlocal started, ended
            started += 1
            try:
                await connection.receive()
            finally:
                await asyncio.sleep(0.05)
                ended += 1

        place = await site.listen(handle)
        ends = [await site.dial(place.address) for _ in range(5)]
        await site.until(lambda: started == 5, "handlers to start")
        await place.stop()
        assert ended == 5
        for end in ends:
            assert await end.rest() == []
        await place.aclose()
        await refused(site, place.address)

    @remedy("Close what has been opened so far when an exception passes, a cancellation included.")
    async def test_a_cancelled_connect(self, site: Site) -> None:
        """A cancelled `connect` leaves nothing open, whenever the cancel comes."""
        place = await site.listen()
        await site.link(place)
        before, luck = descriptors(), chance(3)
        for attempt in range(60):
            dialling = asyncio.ensure_future(
                site.transport.connect(
                    place.address, credentials=site.credentials, timeout=self.patience
                )
            )
            await turns(attempt // 2)
            if attempt % 2:
                await asyncio.sleep(luck.random() / 100)
            dialling.cancel()
            await asyncio.wait([dialling], timeout=self.patience)
            assert dialling.done(), "a cancelled connect goes on"
            if not dialling.cancelled():
                await dialling.result().aclose()
        await self._all_end(place)
        later = asyncio.ensure_future(self._all_end(place, self.patience))

        def closed() -> bool:
            if later.done():
                later.result()
            return descriptors() <= before + 2

        try:
            await site.until(closed, "what was opened to be closed")
        finally:
            later.cancel()
            await asyncio.wait([later])

    async def _all_end(self, place: Place, seconds: float = 0.2) -> None:
        """Whoever has been accepted is gone. Some may be still on the way, for so long."""
        while True:
            try:
                end = await asyncio.wait_for(place.accepted.get(), seconds)
            except TimeoutError:
                return
            assert await end.rest() == []
            await end.aclose()

    @remedy(
        "Raise the backlog and other limits of the library; serve each connection in its own task."
    )
    async def test_a_crowd(self, site: Site) -> None:
        """Hundreds of connections work at once, each with its own messages."""
        place = await site.listen(echo)

        async def visit(number: int) -> None:
            end = await site.dial(place.address)
            for message in (b"%d" % number, bytes([number % 256]) * 3000, b"bye %d" % number):
                await answered(end, message)

        await asyncio.gather(*(visit(number) for number in range(CROWD)))

    @remedy("Keep nothing in the transport that belongs to a loop; make it for each connection.")
    async def test_loops_of_several_threads(self, site: Site) -> None:
        """One transport serves event loops in several threads, for dialling and for listening."""
        place = await site.listen(echo)
        barrier, addresses = threading.Barrier(4), [site.address() for _ in range(4)]
        lines: list[str] = []

        async def talk(address: str) -> None:
            connection = await site.transport.connect(
                address, credentials=site.credentials, timeout=self.patience
            )
            end = End(connection, self.patience)
            for number in range(50):
                await answered(end, b"%d" % number)
            await end.aclose()

        async def visit(number: int) -> None:
            listener = await site.transport.listen(addresses[number], credentials=site.credentials)
            own = Place(listener, self.patience)
            own.serve(echo)
            lines.append(own.address)
            await asyncio.to_thread(barrier.wait, self.patience)
            await asyncio.gather(*(talk(address) for address in (place.address, *lines)))
            await asyncio.to_thread(barrier.wait, self.patience)
            await own.stop()
            await own.aclose()

        threads = (asyncio.to_thread(asyncio.run, visit(number)) for number in range(4))
        await soon(asyncio.gather(*threads), "four loops in threads", 3 * self.patience)

    @remedy("Own a task that does not end by being cancelled, or use callbacks.")
    async def test_the_end_of_a_loop(self, site: Site) -> None:
        """`asyncio.run` cancels all tasks at its end; what is connected goes on until it is closed.

        A connection that needs a task has to go on in it, or it needs callbacks instead.
        """
        place = await site.listen(echo)

        async def visit() -> None:
            connection = await site.transport.connect(
                place.address, credentials=site.credentials, timeout=self.patience
            )
            end = End(connection, self.patience)
            await answered(end)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            for number in range(3):
                await answered(end, b"%d" % number)
            await end.aclose()

        visiting = asyncio.to_thread(asyncio.run, visit())
        await soon(visiting, "a loop in a thread", 3 * self.patience)

    @remedy(
        "Close sockets, channels and pools of threads with the last connection that needs them."
    )
    async def test_nothing_is_left(self, site: Site) -> None:
        """No descriptor and no thread is left once everything has been closed."""

        async def live() -> None:
            place = await site.listen()
            for number in range(3):
                ends = await site.link(place)
                await asyncio.gather(*(end.send(b"x") for end in ends))
                await asyncio.gather(*(end.read(1) for end in ends))
                await ends[number % 2].aclose()
                await ends[1 - number % 2].rest()
                await ends[1 - number % 2].aclose()
            await place.stop()
            await place.aclose()
            await refused(site, place.address)

        for _ in range(3):
            await live()  # what is opened for the first time may stay
        before, threads = descriptors(), threading.active_count()
        for _ in range(12):
            await live()
        gc.collect()
        await site.until(lambda: descriptors() < before + 12, "descriptors to be closed")
        await site.until(lambda: threading.active_count() < threads + 12, "threads to end")
