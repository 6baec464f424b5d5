"""The transport `ws` and the world: strangers at the door, networks that break, idle proxies."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.wskit import MIB, answered, dial, echo, lost, read, serving, until
from wool._transports import listener as listening
from wool.abc import ConnectionLost, Tls
from wool.testing import throwaway_tls
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

TLS = throwaway_tls()

LISTENER = """
import asyncio, os, resource, sys
sys.path.insert(0, sys.argv[1])
from unit.wskit import echo, serving
from wool.testing import throwaway_tls

async def main():
    async with serving(None, throwaway_tls() if sys.argv[2] == "tls" else None, echo) as served:
        limit = int(sys.argv[3])
        if limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        print(served.address, flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""

DIALLER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from unit.wskit import dial

async def main():
    connection = await dial(sys.argv[2])
    await connection.send([[b"ready"]])
    while sys.argv[3] == "reads":
        await connection.receive()
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""

TESTS = str(Path(__file__).parents[1])


@contextlib.contextmanager
def listener(kind: str, descriptors: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A listener in another process; it echoes."""
    command = [sys.executable, "-c", LISTENER, TESTS, kind, str(descriptors)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout.readline().strip()
            assert process.poll() is None
        finally:
            process.kill()
            assert process.stderr.read() == ""


def place_of(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].partition("/")[0].rpartition(":")
    return host, int(port)


async def stranger(place: tuple[str, int], says: bytes = b"") -> socket.socket:
    """Dials, says something, and leaves it at that."""
    sock, loop = socket.socket(), asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_connect(sock, place)
    with contextlib.suppress(OSError):
        await loop.sock_sendall(sock, says)
    return sock


async def is_hung_up_on(sock: socket.socket) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(sock, 4096):
                pass
    sock.close()


UNFINISHED = [
    b"",
    b"\x16\x03\x01\x02\x00\x01",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
    b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"x" * 7000) * 2,
]


# Strangers


@pytest.mark.parametrize("credentials", [None, TLS])
async def test_whoever_does_not_finish_is_given_up(
    monkeypatch: pytest.MonkeyPatch, credentials: Tls | None
) -> None:
    """Also if he goes on, byte by byte."""
    monkeypatch.setattr(listening, "DEADLINE", 0.3)
    async with serving(None, credentials) as served:
        silent = [await stranger(served.place, says) for says in UNFINISHED]
        slow = await stranger(served.place, b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                await asyncio.get_running_loop().sock_sendall(slow, b"x")
                await asyncio.sleep(0.01)
        for sock in (*silent, slow):
            await is_hung_up_on(sock)
        await until(lambda: not served.listener._strangers and not served.listener._tasks)


@pytest.mark.parametrize("credentials", [None, TLS])
async def test_the_oldest_make_room(
    monkeypatch: pytest.MonkeyPatch, credentials: Tls | None
) -> None:
    monkeypatch.setattr(listening, "STRANGERS", 3)
    async with serving(None, credentials, echo) as served:
        friend = await dial(served.address, credentials)
        socks = [await stranger(served.place) for _ in range(5)]
        for sock in socks[:2]:
            await is_hung_up_on(sock)
        assert len(served.listener._strangers) == 3
        await answered(friend)
        another = await dial(served.address, credentials)
        await answered(another)
        await is_hung_up_on(socks[2])
        for connection in (friend, another):
            await connection.aclose()
        for sock in socks[3:]:
            sock.close()


@pytest.mark.parametrize(
    "says",
    [
        b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000,
        b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 9000),
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"\xff\xfe\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_requests_that_are_none(says: bytes) -> None:
    """Are ended, at once and without a trace."""
    async with serving() as served:
        await is_hung_up_on(await stranger(served.place, says))
        await until(lambda: not served.listener._tasks)
        assert served.connections.empty()


async def test_tls_that_is_there_before_it_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """It is of no use to a listener without TLS, and nothing for the log."""
    listener = await WebSocketTransport(Options()).listen(None, credentials=None)
    sock = await stranger(place_of(listener.address), b"\x16\x03\x01\x02\x00\x01")
    serving = asyncio.create_task(listener.serve(echo))
    await is_hung_up_on(sock)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    gc.collect()
    assert caplog.records == []


async def test_strangers_at_a_listener_that_closes() -> None:
    async with serving() as served:
        socks = [await stranger(served.place, says) for says in UNFINISHED if says[:1] != b"\x16"]
        await until(lambda: len(served.listener._strangers) == len(socks))
        await served.listener.aclose()
        for sock in socks:
            await is_hung_up_on(sock)


def resident(process: subprocess.Popen[str]) -> int:
    """MiB of memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.timeout(180)  # so many take their time on a machine that has much to do
@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_ten_thousand_strangers(kind: str) -> None:
    """Take some memory, but no more and more, and others are served meanwhile."""
    credentials = TLS if kind == "tls" else None
    with listener(kind) as (process, address):
        place, before = place_of(address), resident(process)
        friend = await dial(address, credentials)
        says = itertools.cycle(UNFINISHED)
        crowd = collections.deque[socket.socket]()
        for number in range(10_000):
            crowd.append(await stranger(place, next(says)))
            if len(crowd) > 400:  # who is older has been dropped
                crowd.popleft().close()
            if number % 250 == 249:  # which also keeps us from running ahead
                await answered(friend)
                another = await dial(address, credentials)
                await answered(another)
                await another.aclose()
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < listening.STRANGERS + 50
        assert resident(process) - before < 200
        for sock in crowd:
            sock.close()
        await friend.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits")
async def test_a_lack_of_descriptors() -> None:
    """Strangers have to leave, and the listener goes on."""
    with listener("plain", 40) as (_, address):
        friend = await dial(address)
        crowd = [await stranger(place_of(address)) for _ in range(100)]
        await answered(friend)
        await is_hung_up_on(crowd[0])
        for sock in crowd[1:]:
            sock.close()
        await answered(another := await dial(address))
        for connection in (friend, another):
            await connection.aclose()


# Peers that do not answer


@contextlib.asynccontextmanager
async def peer(address: str, what: str, *wrapper: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has dialled."""
    command = [*wrapper, sys.executable, "-c", DIALLER, TESTS, address, what]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def flood(connection: Any) -> None:
    with contextlib.suppress(ConnectionLost):
        while True:
            await connection.send([[bytes(MIB)]])


PATIENCE = {"keepalive": 1.0, "keepalive_timeout": 1.0}


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped")
async def test_a_peer_that_does_not_read_is_not_dead() -> None:
    """Nor is one that is stopped, however much is waiting for it. Takes longer than patience."""
    async with serving(**PATIENCE) as served, contextlib.AsyncExitStack() as stack:
        connections: list[Any] = []
        for what in ("reads", "reads", "nothing"):
            process = await stack.enter_async_context(peer(served.address, what))
            connections.append(await served.next())
            assert await read(connections[-1], 1) == [b"ready"]
            if len(connections) < 3:
                process.send_signal(signal.SIGSTOP)
        floods = [asyncio.create_task(flood(connection)) for connection in connections[1:]]
        losses = [asyncio.create_task(connection.receive()) for connection in connections]
        done, _ = await asyncio.wait([*losses, *floods], timeout=4.0)
        assert done == set()
        for task in (*losses, *floods):
            task.cancel()
        await asyncio.gather(*losses, *floods, return_exceptions=True)


@pytest.fixture
def network() -> Iterator[Network]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs Linux, root, and ip of iproute2")
    network = Network()
    try:
        network.open()
    except subprocess.CalledProcessError as error:
        network.close()
        pytest.skip(f"cannot make networks here: {error}")
    yield network
    network.close()


class Network:
    """Two machines, of which one is ours, and a switch between them."""

    def __init__(self) -> None:
        self.name = f"wl{os.getpid() % 100_000}"
        self.here = "198.18.77.1"
        self.there = ("ip", "netns", "exec", self.name)

    def open(self) -> None:
        name = self.name
        self._ip("netns", "add", name)
        self._ip("link", "add", f"{name}b", "type", "bridge")
        self._ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
        self._ip("link", "set", f"{name}v", "master", f"{name}b", "up")
        self._ip("address", "add", f"{self.here}/24", "dev", f"{name}b")
        self._ip("link", "set", f"{name}b", "up")
        self._ip("-n", name, "address", "add", "198.18.77.2/24", "dev", "eth0")
        self._ip("-n", name, "link", "set", "eth0", "up")

    def cut(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._ip("link", "set", f"{self.name}v", "nomaster")

    def close(self) -> None:
        for what in (("link", f"{self.name}b"), ("link", f"{self.name}v"), ("netns", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip(what[0], "delete", what[1])

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


async def test_a_network_that_is_cut(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """Is noticed in time, whatever the connection was doing."""
    async with (
        serving(f"ws://{network.here}:0", **PATIENCE) as served,
        contextlib.AsyncExitStack() as stack,
    ):
        connections: dict[str, Any] = {}
        for name, what in (("idle", "reads"), ("sending", "reads"), ("clogged", "nothing")):
            await stack.enter_async_context(peer(served.address, what, *network.there))
            connections[name] = await served.next()
            assert await read(connections[name], 1) == [b"ready"]
        floods = [asyncio.create_task(flood(connections["clogged"]))]
        await until(lambda: connections["clogged"]._writable is not None)
        await asyncio.sleep(0.5)  # the window closes
        floods.append(asyncio.create_task(flood(connections["sending"])))
        loop = asyncio.get_running_loop()
        network.cut()
        cut, ends = loop.time(), dict[str, float]()

        async def notice(name: str) -> None:
            await lost(connections[name])
            ends[name] = loop.time() - cut

        await asyncio.gather(*map(notice, connections), *floods)
        with capsys.disabled():
            print("\nnoticed a cut network after", {k: f"{v:.1f} s" for k, v in ends.items()})


# Proxies that drop idle connections


class Relay:
    """A TCP proxy that counts what passes."""

    def __init__(self, place: tuple[str, int]) -> None:
        self.place = place
        self.passed = [0, 0]
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        onward = await asyncio.open_connection(*self.place)
        ways = [(reader, onward[1]), (onward[0], writer)]
        await asyncio.gather(*(self._pass(*way, number) for number, way in enumerate(ways)))
        self.open -= 1

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.passed[way] += len(data)
                writer.write(data)
        writer.close()


async def test_an_idle_connection_gives_signs_of_life() -> None:
    """Both ends, by themselves, and nobody has to answer."""
    async with serving(handler=echo, heartbeat=0.1) as served:
        relay = Relay(served.place)
        async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ours = await dial(f"ws://127.0.0.1:{port}", heartbeat=0.1)
            before = list(relay.passed)
            await until(
                lambda: all(now - then > 6 for now, then in zip(relay.passed, before, strict=True))
            )
            await answered(ours)
            await ours.aclose()
            await until(lambda: relay.open == 0)


async def test_signs_of_life_do_not_pile_up() -> None:
    """At a peer that does not read."""
    async with serving(heartbeat=0.1) as served:
        ours = await dial(served.address)
        theirs = await served.next()
        flooding = asyncio.create_task(flood(theirs))
        await until(lambda: theirs._writable is not None)
        flooding.cancel()
        held = theirs._transport.get_write_buffer_size()
        await asyncio.sleep(0.5)
        assert theirs._transport.get_write_buffer_size() <= held
        await ours.aclose()


async def test_whoever_comes_as_it_closes() -> None:
    """Is let go of: no socket is left to the garbage collector, which would complain."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs, socket.socket() as client:
        async with serving("ws://127.0.0.1:0", handler=echo) as served:

            def arrive() -> None:  # both in one turn of the loop, we first
                theirs.send(b"x")
                client.connect(served.place)

            await (await dial(served.address)).aclose()  # it serves
            loop.call_soon(arrive)
            await loop.sock_recv(ours, 1)
            await served.listener.aclose()
        gc.collect()
