"""Peers in other processes: killed, stopped, and strangers that speak something else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit, urlunsplit

import pytest

from wool.testing._kit import compare, remedy, soon
from wool.testing._process import STARTING, Process
from wool.testing._transport.base import Base, End, Site
from wool.testing._transport.ends import lost
from wool.testing._transport.flow import Flood, numbered
from wool.testing._transport.listening import answered, echo, outcome

PROMPTLY = 5.0
"""Seconds until the death of a peer is noticed; less than any keep-alive would take."""

WORDS = {
    "nothing": b"",
    "one byte": b"\0",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "all bytes": bytes(range(256)) * 300,
}
"""What strangers say."""


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
    if isinstance(place, str):
        sock.bind(f"{place}x")
        sock.listen()
        return sock, f"{address}x"
    sock.bind((place[0], 0))
    sock.listen()
    parts = urlsplit(address)
    netloc = parts.netloc.removesuffix(f":{place[1]}") + f":{sock.getsockname()[1]}"
    return sock, urlunsplit(parts._replace(netloc=netloc))


class Peers(Base):
    """Part of `TransportSuite`."""

    @pytest.fixture
    def elsewhere(self) -> None:
        """Skips tests with peers that a transport within one process cannot have."""
        if self.in_process:
            pytest.skip("connections do not leave this process")

    @pytest.mark.parametrize("role", ["dials", "listens"])
    @pytest.mark.usefixtures("elsewhere")
    @remedy("Map the end of the stream and errors of the socket to `ConnectionLost` at once.")
    async def test_a_peer_that_is_killed(self, site: Site, role: str) -> None:
        """A peer that is killed is noticed promptly by whoever waits for it, and by who sends."""
        async with self._peer(site, role) as (peer, end):
            await answered(end)
            receiving = asyncio.ensure_future(end.connection.receive())
            peer.kill()
            await lost(receiving, "receive whose peer was killed", min(PROMPTLY, self.patience))
            await end.rest()

    @pytest.mark.parametrize("role", ["dials", "listens"])
    @pytest.mark.usefixtures("elsewhere")
    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped")
    @remedy("Bound what is queued, and take a silent peer for slow, not for dead.")
    async def test_a_peer_that_is_stopped(self, site: Site, role: str) -> None:
        """A peer that is stopped makes `send` wait; going on, nothing is lost; killed, all is."""
        async with self._peer(site, role) as (peer, end):
            await answered(end)
            peer.signal(signal.SIGSTOP)
            flood = Flood(end)
            await flood.stalls()
            peer.signal(signal.SIGCONT)
            got = await flood.stop(end)
            compare(got, [numbered(number) for number in range(flood.taken)])
            await answered(end)
            peer.signal(signal.SIGSTOP)
            flood = Flood(end)
            await flood.stalls()
            peer.kill()
            await lost(flood.task, "send whose peer was killed", min(PROMPTLY, self.patience))
            await end.rest()

    @contextlib.asynccontextmanager
    async def _peer(self, site: Site, role: str) -> AsyncGenerator[tuple[Process, End]]:
        """A process that has dialled us, or that we have dialled; it echoes."""
        if role == "dials":
            place = await site.listen()
            async with self._process(role, place.address) as peer:
                end = await place.next(within=STARTING + self.patience)
                end.connection.receive_limit = end.connection.max_message_size
                yield peer, end
        else:
            async with self._process(role, site.address()) as peer:
                end = await site.dial(await peer.line())
                end.connection.receive_limit = end.connection.max_message_size
                yield peer, end

    def _process(self, role: str, address: str | None) -> Process:
        return Process(
            self, "wool.testing._transport.peer", self.patience, role=role, address=address
        )

    @pytest.mark.parametrize("says", WORDS.values(), ids=WORDS)
    @pytest.mark.usefixtures("elsewhere")
    @remedy("Handshake in the task of the connection, not where connections are accepted.")
    async def test_a_stranger_that_dials(
        self, site: Site, says: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A stranger that says something else keeps nobody else from getting in."""
        place, loop = await site.listen(echo), asyncio.get_running_loop()
        socks: list[socket.socket] = []
        try:
            for goes in (True, False, True, False):
                sock = stranger(place.address)
                socks.append(sock)
                await loop.sock_connect(sock, place_of(place.address))
                with contextlib.suppress(OSError):
                    await soon(loop.sock_sendall(sock, says), "sending", self.patience)
                if goes:
                    sock.close()
                await answered(await site.dial(place.address))
            await place.stop()
        finally:
            for sock in socks:
                sock.close()
        caplog.clear()  # it may well be logged

    @pytest.mark.parametrize("says", WORDS.values(), ids=WORDS)
    @pytest.mark.usefixtures("elsewhere")
    @remedy("Map what the library says of a wrong peer to `ConnectFailed` or `ConnectionLost`.")
    async def test_a_stranger_that_listens(self, site: Site, says: bytes) -> None:
        """A stranger that says something else and hangs up is no connection, or soon none."""
        sock, address = listening((await site.listen()).address)
        loop = asyncio.get_running_loop()

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

    @pytest.mark.usefixtures("elsewhere")
    @remedy("Bound the handshake by the timeout of `connect`.")
    async def test_a_stranger_that_says_nothing(self, site: Site) -> None:
        """A stranger that says nothing is given up in time, if an answer is waited for at all."""
        sock, address = listening((await site.listen()).address)
        try:
            met = await outcome(site.dial(address, timeout=0.3))
            assert isinstance(met, End) or met.reason == "timeout"
        finally:
            sock.close()
