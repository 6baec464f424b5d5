"""The conformance kit of launchers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from typing import Any
from urllib.parse import urlsplit

import pytest

import wool
from wool.abc import Launcher
from wool.testing._kit import Process, remedy, say, soon, until

__all__ = ["LauncherSuite"]

RELAY = "Pass what comes to standard input on at once, byte for byte, and also that it has ended."


@pytest.mark.asyncio(loop_scope="function")
class LauncherSuite:
    """Tests of a launcher, with pools whose workers it starts. Subclass it in a test module.

    Attributes:
        patience: seconds that anything may take before it counts as hanging.
    """

    patience: float = 60.0

    def launcher(self) -> Launcher:
        """Makes the launcher that is tested, with room for two workers; called for each pool."""
        raise NotImplementedError

    def broken(self) -> tuple[Launcher, str]:
        """Makes one that cannot start workers; returns it, and words that say why it cannot."""
        raise NotImplementedError

    def left(self) -> object:
        """Returns what there still is of workers besides themselves, such as jobs in a queue."""
        return None

    def pool(self, size: int = 1, **options: Any) -> wool.WorkerPool:
        """Makes a pool."""
        options = {"quorum": size, "quorum_timeout": self.patience, **options}
        return wool.WorkerPool(size=size, launcher=self.launcher(), **options)

    async def gone(self, workers: list[str]) -> None:
        """Waits until nothing is left of workers at these addresses."""
        for address in workers:
            await until(lambda a=address: not _listens(a), f"a worker at {address}", self.patience)
        await until(lambda: not self.left(), "what the launcher has started", self.patience)

    @remedy("Return a command for each slot, and run the interpreter with all the arguments.")
    async def test_workers_are_started(self) -> None:
        """A pool gets as many workers as it asks for, and each does what it is told."""

        @wool.routine
        async def who(number: int) -> tuple[int, int]:
            return number + 1, os.getpid()

        async with self.pool(2) as pool:
            results = {worker.pid: result async for worker, result in pool.broadcast(who, 1)}
            assert results == {worker.pid: (2, worker.pid) for worker in pool.workers}
            assert len(pool.workers) == 2

    @remedy("Pass no secrets on by yourself: Wool writes them to the command's standard input.")
    async def test_secrets_are_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No token is on a command line, or in the environment of what a worker starts."""

        @wool.routine
        async def environment() -> tuple[dict[str, str], bytes]:
            return dict(os.environ), os.read(0, 1)

        token = wool.Credentials.new_token()
        monkeypatch.setenv("WOOL_TOKEN", token)
        credentials = wool.Credentials.token(token) if self.launcher().elsewhere else None
        async with self.pool(credentials=credentials):
            variables, stdin = await environment()
            command = ["ps", "axww", "-o", "args"]
            said = await asyncio.to_thread(subprocess.check_output, command, text=True)
            assert token not in said, "a command line has the token"
            assert token not in variables.values(), "the environment has the token"
            assert stdin == b"", "what was sent to the worker can be read by routines"

    @remedy("Let the command end as the interpreter has: with its exit code, or 128 and a signal.")
    @pytest.mark.parametrize("code", [7, -signal.SIGKILL])
    async def test_how_a_worker_ends_is_told(self, code: int) -> None:
        """A worker that ends by itself or is killed is replaced, and its call says how it ended."""

        @wool.routine
        async def end(code: int) -> int:
            if code > 0:
                os._exit(code)
            if code < 0:
                os.kill(os.getpid(), -code)
            return os.getpid()

        async with self.pool() as pool:
            before = pool.workers
            with pytest.raises(wool.WorkerLost) as lost:
                await end(code)
            assert code == (lost.value.exitcode or -(lost.value.signal or 0))
            assert await end(0) != before[0].pid

    @remedy(RELAY)
    async def test_a_pool_that_is_left_leaves_nothing(self) -> None:
        """Workers end when their pool does, without being killed."""
        async with self.pool(2) as pool:
            workers = [worker.address for worker in pool.workers]
        await soon(self.gone(workers), "what a pool has started", self.patience)

    @remedy("Have the command end at SIGTERM, and with it whatever it has begun elsewhere.")
    async def test_a_pool_that_is_given_up_leaves_nothing(self) -> None:
        """Workers that were about to start when opening a pool was cancelled do not start."""

        async def use() -> None:
            async with self.pool(2):
                await asyncio.Event().wait()

        opening = asyncio.ensure_future(use())
        await asyncio.wait([opening], timeout=0.2)
        opening.cancel()
        await soon(asyncio.wait([opening]), "a pool that is given up", self.patience)
        await self.gone([])

    @remedy(RELAY)
    async def test_a_caller_that_is_killed_leaves_nothing(self) -> None:
        """Workers end soon after the process that has started them, however that ends."""
        async with Process(self) as process:
            workers = json.loads(await process.line())
            assert all(map(_listens, workers))
            process.kill()
            await self.gone(workers)

    async def play(self, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
        """In the other process: has workers until it is killed."""
        async with self.pool(2) as pool:
            say(json.dumps([worker.address for worker in pool.workers]))
            await told.get()

    @remedy("Say it in `explain`, or let the command write it to standard error.")
    async def test_a_failure_has_a_reason(self) -> None:
        """Workers that cannot be started make the pool fail with the reason."""
        launcher, words = self.broken()
        with pytest.raises(wool.NoWorkersAvailable) as raised:
            async with wool.WorkerPool(launcher=launcher, size=1, quorum_timeout=self.patience):
                pytest.fail("the pool was opened")
        assert words in str(raised.value)
        await self.gone([])


def _listens(address: str) -> bool:
    """Whether a worker can still be dialled."""
    parts = urlsplit(address)
    there: Any = parts.path if parts.scheme.endswith("unix") else (parts.hostname, parts.port)
    with socket.socket(socket.AF_UNIX if isinstance(there, str) else socket.AF_INET) as dialled:
        dialled.settimeout(5)
        return dialled.connect_ex(there) == 0
