"""What a pool on one machine shows to outsiders, and what they can do to it."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import pytest

import wool
from support.jobs import add
from support.pools import opened, pids

pytestmark = pytest.mark.timeout(60)


def socket_path(worker: wool.WorkerInfo) -> str:
    assert worker.address.startswith("unix:///")
    return worker.address.removeprefix("unix://")


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


async def test_own_pools_do_not_serve_each_other(folder: Path) -> None:
    """Two pools of one user have secrets of their own."""
    async with opened(1) as first, opened(1) as second:
        with first.use():
            assert await add(1, 2) == 3
        with second.use():
            assert await add(1, 2) == 3
        addresses = {socket_path(w) for pool in (first, second) for w in pool.workers}
        assert len(addresses) == 2
