"""Helpers of the security tests: workers to attack, their legitimate callers, what was observed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import wool
from support.jobs import add
from support.pools import CARRIERS
from support.processes import alive
from wool._addresses import is_socket
from wool._backends.cloudpickle import Options, make
from wool._client.peer_pool import PeerPool
from wool._peer.routes import Routes
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Keyring, PoolSecret, SameUser, Token
from wool._worker.transports import Transports

#: The ways to reach a worker that other machines can reach too: its callers have a token.
NETWORK = [name for name in CARRIERS if name != "unix"]
#: The ways to reach a worker of a pool on this machine: its callers have the pool's secret.
LOCAL = [name if name == "unix" else f"{name}+unix" for name in CARRIERS]

every_channel = pytest.mark.parametrize(
    "target", [*LOCAL, *NETWORK], indirect=True, scope="session"
)
every_network = pytest.mark.parametrize("target", NETWORK, indirect=True, scope="session")
every_local = pytest.mark.parametrize("target", LOCAL, indirect=True, scope="session")

TOKEN = wool.Credentials.new_token()

#: Words that only a Python traceback or a library would say: users are told something better.
RAW = re.compile(r"Traceback|\[SSL|_ssl\.c|OpenSSL|AioRpc|StatusCode|grpc_status|WinError|Errno")


class Target:
    """A worker in a process of its own, which attackers know the address of.

    Args:
        channel: how it is reached, such as `ws` or `ws+unix`.
        folder: for what it writes to standard error.
    """

    def __init__(self, channel: str, folder: Path) -> None:
        self.channel = channel
        self._errors = folder / f"{channel}.stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "siegehost.py"), channel],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WOOL_TOKEN": TOKEN},
            )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline() or "{}")
        assert told, f"there is no worker:\n{self.errors}"
        self.address: str = told["address"]
        self.pid: int = told["pid"]
        self.secret = bytes.fromhex(told["secret"])

    @property
    def local(self) -> bool:
        """Whether it listens at a Unix socket."""
        return is_socket(self.address)

    @property
    def credentials(self) -> Authenticator:
        """The credentials that its callers have."""
        return PoolSecret(self.secret) if self.local else Token(TOKEN)

    @property
    def wrong(self) -> Authenticator:
        """Credentials of the same kind that are of no use."""
        return PoolSecret() if self.local else Token(wool.Credentials.new_token())

    @property
    def errors(self) -> str:
        """The text that it has written to standard error."""
        return self._errors.read_text(errors="replace")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def close(self) -> None:
        """Has it end, which must be in good order."""
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
        assert (self.process.returncode, self.errors) == (0, "")


@asynccontextmanager
async def calling(
    address: str,
    credentials: Authenticator | None = None,
    routes: Routes | None = None,
    *,
    patience: float = 25.0,
) -> AsyncIterator[PeerPool]:
    """Calls as a pool does that has found a worker at this address.

    Args:
        credentials: for it, whether it is on a network or at a Unix socket.
        patience: seconds that a call waits for a worker.
    """
    pool = PeerPool(secrets.token_hex(4), CallOptions(quorum_timeout=patience))
    local = credentials if credentials is not None and is_socket(address) else SameUser()
    keyring = Keyring(local, credentials)
    pool.opened(routes or Transports({}).routes, keyring, "cloudpickle", make(Options()))
    pool.set_members({address: wool.WorkerInfo(id=address, address=address)})
    try:
        with pool.view.use():
            yield pool
    finally:
        await pool.close_clients()


async def served(target: Target) -> None:
    """Checks that somebody who comes with the right credentials is served."""
    async with calling(target.address, target.credentials), asyncio.timeout(30):
        assert await add(1, 2) == 3


@asynccontextmanager
async def besieged(target: Target) -> AsyncIterator[None]:
    """Calls a worker all the while, and once more on a new connection; it must not even complain.

    Calls within are made as by a legitimate caller that has been connected before.
    """
    async with calling(target.address, target.credentials):
        over = asyncio.Event()
        beside = asyncio.create_task(_call_until(over))
        try:
            yield
        finally:
            over.set()
            calls = await beside
        assert calls > 0
    await served(target)
    assert alive(target.pid)
    assert target.errors == ""


async def _call_until(over: asyncio.Event) -> int:
    """Calls every now and then; returns how often."""
    calls = 0
    while not calls or not over.is_set():
        async with asyncio.timeout(20):
            assert await add(1, 2) == 3
        calls += 1
        await asyncio.sleep(0.01)
    return calls
