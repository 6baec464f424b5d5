"""A pool on one machine shows nothing to the network."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from support.jobs import add
from support.pools import opened, pids

pytestmark = pytest.mark.timeout(60)


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
