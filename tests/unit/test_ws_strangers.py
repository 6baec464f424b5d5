"""The transport `ws` and the world: strangers at the door, networks that break, idle proxies."""

from __future__ import annotations

import asyncio
import contextlib
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

from support.transports import answered, echo, lost, read, stranger
from support.waiting import until
from unit.wskit import MIB, dial, serving
from wool._transports import listener as listening
from wool.abc import ConnectionLost, Tls
from wool.testing import throwaway_tls

TLS = throwaway_tls()

LISTENER = """
import asyncio, os, resource, sys
sys.path.insert(0, sys.argv[1])
from support.transports import echo
from unit.wskit import serving
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
