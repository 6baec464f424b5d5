"""A Redis server of our own, which tests stop and start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """`redis-server` on a Unix socket, which keeps nothing when it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis"
        self.url = f"unix://{self.socket}?db=3"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder), *options], stdout=subprocess.DEVNULL
        )
        while not self._answers():
            assert self.process.poll() is None, "redis-server has ended"
            time.sleep(0.01)

    def _answers(self) -> bool:
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), "ping"], capture_output=True, check=False
        )
        return done.stdout.strip() in (b"PONG", b"NOAUTH Authentication required.")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.socket.unlink(missing_ok=True)

    def cli(self, *command: str) -> str:
        """Sends a command to the database in use."""
        return subprocess.run(
            ["redis-cli", "-s", str(self.socket), "-n", "3", *command],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@contextmanager
def prepared() -> Iterator[Server]:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        missing = pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip
        missing("redis-server is not installed")
    folder = Path(tempfile.mkdtemp(prefix="r"))  # the path of a socket must be short
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def stopped() -> Iterator[Server]:
    """A server that is not running."""
    with prepared() as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One that is running, for all tests of a module."""
    with prepared() as server:
        server.start()
        yield server


@pytest.fixture
def server(stopped: Server) -> Server:
    """A server that is running."""
    stopped.start()
    return stopped
