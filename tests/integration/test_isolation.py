"""What a pool on one machine shows to outsiders, and what they can do to it."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, count, hold
from support.pools import opened, pids
from support.processes import rss
from support.waiting import pid_in

pytestmark = pytest.mark.timeout(60)


def socket_path(worker: wool.WorkerInfo) -> str:
    assert worker.address.startswith("unix:///")
    return worker.address.removeprefix("unix://")


def dial(worker: wool.WorkerInfo) -> socket.socket:
    """Connects, waiting while the listener's queue is full; not on the loop's thread."""
    outsider = socket.socket(socket.AF_UNIX)
    outsider.settimeout(30)
    deadline = time.monotonic() + 30
    while True:
        try:
            outsider.connect(socket_path(worker))
            return outsider
        except BlockingIOError:
            if time.monotonic() > deadline:
                outsider.close()
                raise
            time.sleep(0.005)


class Intruder:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@asynccontextmanager
async def besieged(folder: Path) -> AsyncIterator[wool.WorkerInfo]:
    """A worker that serves all the while and must be the same afterwards."""
    async with opened(1) as pool:
        before = pids(pool)
        call = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        serving = True

        async def serve() -> int:
            served = 0
            while serving:
                async with asyncio.timeout(20):
                    assert await add(1, 2) == 3
                    assert [i async for i in count(2)] == [0, 1]
                served += 1
                await asyncio.sleep(0.005)
            return served

        beside = asyncio.ensure_future(serve())
        try:
            yield pool.workers[0]
        finally:
            serving = False
        assert await beside > 0
        (folder / "go").touch()
        assert await call in before
        assert pids(pool) == before


def shapes(message: bytes) -> list[bytes]:
    """A message as various protocols would frame it."""
    size = len(message)
    return [
        message,
        struct.pack("<I", size) + message,
        struct.pack(">I", size) + message,
        struct.pack("<Q", size) + message,
        struct.pack(">Q", size) + message,
        struct.pack("<II", size, 0) + message,
        struct.pack("<BI", 1, size) + message,
        b"\xc6" + struct.pack(">I", size) + message,
    ]


async def send(worker: wool.WorkerInfo, message: bytes) -> None:
    def talk() -> None:
        with dial(worker) as outsider:
            outsider.settimeout(0.3)
            with suppress(OSError):
                outsider.sendall(message)
                outsider.recv(65536)

    await asyncio.to_thread(talk)


async def test_socket_folder_is_private() -> None:
    """Only its user can enter the folder that the socket is in."""
    async with opened(2) as pool:
        for worker in pool.workers:
            path = Path(socket_path(worker))
            assert stat.S_ISSOCK(path.stat().st_mode)
            folder = path.parent.stat()
            assert stat.S_IMODE(folder.st_mode) == 0o700
            assert folder.st_uid == os.getuid()
            assert len(os.fsencode(path)) <= 100


async def test_no_network_socket() -> None:
    """On one machine nothing listens on, or is connected to, the network."""
    async with opened(2) as pool:
        assert await add(1, 2) == 3
        network = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            with suppress(FileNotFoundError):
                for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                    network.add(f"socket:[{line.split()[9]}]")
        for pid in pids(pool):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    assert os.readlink(link) not in network


def visible(pid: int) -> set[bytes]:
    """Words on the command line and in the environment of a process that may be secrets."""
    text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    return set(re.findall(rb"[A-Za-z0-9+=_-]{16,}", text))


async def test_secret_is_not_visible() -> None:
    """Command lines and environments can be read by others: no word there is new with each pool."""
    found = []
    for _ in range(2):
        async with opened(2) as pool:
            assert await add(1, 2) == 3
            found += [visible(pid) for pid in pids(pool)]
    common = set.intersection(*found)
    for words in found:
        assert words - common == set()


async def test_pickle_from_an_outsider(folder: Path) -> None:
    """Nobody who has not proved to know the secret gets as far as the first `loads`."""
    trace = folder / "trace"
    async with besieged(folder) as worker:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for message in shapes(pickle.dumps(Intruder(trace), protocol)):
                await send(worker, message)
    assert not trace.exists()


async def test_garbage_from_an_outsider(folder: Path) -> None:
    """Random bytes, foreign protocols, enormous lengths: that connection ends, nothing else."""
    async with besieged(folder) as worker:
        messages = [
            b"",
            b"\0",
            b"\xff" * 64,
            b"\0" * 5000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x80" * 10_000,
            b"\x91" * 10_000,
            *(os.urandom(size) for size in (1, 3, 8, 100, 5000, 100_000)),
        ]
        for message in messages:
            await send(worker, message)


async def test_flood_from_an_outsider(folder: Path) -> None:
    """Memory is bounded before authentication, however much somebody sends."""
    async with besieged(folder) as worker:
        before = rss(worker.pid)

        def flood(head: bytes) -> None:
            with dial(worker) as outsider, suppress(OSError):
                outsider.sendall(head)
                for _ in range(64):
                    outsider.sendall(bytes(1 << 20))

        for head in (b"", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x04\0\0\0\0"):
            await asyncio.to_thread(flood, head)
        assert rss(worker.pid) - before < 32 << 20


async def test_silent_outsiders(folder: Path) -> None:
    """Hundreds that connect and say nothing do not keep the pool's own connections out."""
    outsiders: list[socket.socket] = []
    async with besieged(folder) as worker:
        try:
            for _ in range(400):
                outsider = await asyncio.to_thread(dial, worker)
                outsiders.append(outsider)

            def call_from_elsewhere() -> int:
                async def call() -> int:
                    return await add(1, 2)

                return asyncio.run(call())

            # Another thread has no connection yet, and must get one.
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(call_from_elsewhere) == 3
        finally:
            for outsider in outsiders:
                outsider.close()


async def test_outsider_that_hangs_up(folder: Path) -> None:
    """Connections that end at once, or in the middle of a message."""
    async with besieged(folder) as worker:

        def visit() -> None:
            for i in range(300):
                with dial(worker) as outsider:
                    if i % 2:
                        with suppress(OSError):
                            outsider.send(b"\x10\0\0\0\x01")

        await asyncio.to_thread(visit)


async def test_own_pools_do_not_serve_each_other(folder: Path) -> None:
    """Two pools of one user have secrets of their own."""
    async with opened(1) as first, opened(1) as second:
        with first.use():
            assert await add(1, 2) == 3
        with second.use():
            assert await add(1, 2) == 3
        addresses = {socket_path(w) for pool in (first, second) for w in pool.workers}
        assert len(addresses) == 2
