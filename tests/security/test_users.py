"""Another user of the same machine, at the Unix sockets of this one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

import wool
from security.siegekit import LOCAL, RAW, Target, besieged, calling, every_local
from security.siegepeers import failure
from support.jobs import add
from wool.exceptions import ConfigurationError, NoWorkersAvailable

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can become another user",
)


class User:
    """Another user's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *order: str) -> str:
        """Has it do something, and returns what it tells."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{json.dumps(order)}\n".encode())
        async with asyncio.timeout(40):
            told: str = json.loads(await stdout.readline())
        return told


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[User]:
    """A process of the user `nobody`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "siegeuser.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    yield User(process)
    process.kill()
    await process.wait()


@contextmanager
def opened_by_force(address: str) -> Iterator[None]:
    """Lets everybody into the directory of a socket, and at the socket."""
    path = Path(address.partition("://")[2])
    path.chmod(0o777)
    path.parent.chmod(0o755)
    try:
        yield
    finally:
        path.parent.chmod(0o700)


@every_local
async def test_the_socket_of_a_pool(target: Target, nobody: User) -> None:
    async with besieged(target):
        seen = await nobody.ask("visit", target.address, "pool")
        assert seen == "cannot enter the directory, permission denied"
        with opened_by_force(target.address):
            seen = await nobody.ask("visit", target.address, "pool")
        assert seen.startswith("enters the directory, then") and "Welcome" not in seen
        if target.channel == "unix":
            assert seen == "enters the directory, then nothing, then the connection ends"


@pytest.mark.parametrize("channel", LOCAL)
async def test_the_socket_of_a_worker(channel: str, nobody: User, folder: Path) -> None:
    """There is no secret: who one is, is enough, so the kernel must be asked."""
    folder.chmod(0o755)
    try:
        served_here = wool.Worker(address=f"{channel}://{folder}/sockets/w")
    except ConfigurationError:  # the transport cannot tell who is there
        return
    async with served_here as worker:
        address = worker.info.address
        seen = await nobody.ask("visit", address, "worker")
        assert seen == "cannot enter the directory, permission denied"
        with opened_by_force(address):
            seen = await nobody.ask("visit", address, "worker")
        assert seen.startswith("enters the directory, then") and "Welcome" not in seen
        async with calling(address):
            assert await add(1, 2) == 3


@pytest.mark.parametrize("channel", LOCAL)
async def test_a_socket_of_somebody_else(channel: str, nobody: User, folder: Path) -> None:
    """A discovery leads to a socket that another user has made: it is not even dialled."""
    folder.chmod(0o777)
    path = f"{folder}/theirs/w"
    assert await nobody.ask("listen", path) == "listening"
    async with calling(f"{channel}://{path}", patience=0.3):
        error = await failure(add(1, 2))
        while path not in str(error):  # it was not tried that soon
            error = await failure(add(1, 2))
    assert type(error) is NoWorkersAvailable and not RAW.search(str(error))
    assert "must be a directory of this user" in str(error)
    heard = await nobody.ask("go on")
    assert heard == "nobody came"
