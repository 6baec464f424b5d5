"""Workers in processes of their own, and a caller that finds them by environment variables."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import wool

TTL = 3


@wool.routine
async def where() -> int:
    return os.getpid()


@pytest.fixture
def start(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts `wool worker` as the README says, but on the loopback interface."""
    monkeypatch.setenv("WOOL_REDIS__URL", server.url)
    monkeypatch.setenv("WOOL_REDIS__TTL", str(TTL))
    monkeypatch.setenv("WOOL_TOKEN", wool.Credentials.new_token())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # for `where`
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wool.cli", "worker", "--address", "grpc://127.0.0.1:0"]
        processes.append(subprocess.Popen([*command, "--discovery", "redis", *arguments]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


async def until(pool: wool.WorkerPool, *processes: subprocess.Popen[bytes]) -> None:
    """Waits until calls are answered by these workers and no others."""
    expected = {process.pid for process in processes}
    async with asyncio.timeout(40):
        while True:
            answers = await asyncio.gather(*(where() for _ in range(8)), return_exceptions=True)
            if set(answers) == expected == {worker.pid for worker in pool.workers}:
                return
            assert all(isinstance(answer, (int, wool.WorkerLost)) for answer in answers), answers
            await asyncio.sleep(0.05)


async def until_keys(server: Any, count: int) -> None:
    """Waits until so many workers are announced."""
    async with asyncio.timeout(40):
        while len(server.cli("keys", "*").split()) != count:
            await asyncio.sleep(0.05)


async def test_two_workers_and_a_caller(
    start: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = start(), start("--tag", "two")
    monkeypatch.setenv("WOOL_DISCOVERY", "redis")
    async with wool.WorkerPool() as pool:
        await pool.wait(2, timeout=40)
        await until(pool, one, two)
        assert {frozenset(worker.tags) for worker in pool.workers} == {
            frozenset(),
            frozenset({"two"}),
        }

        one.kill()  # its key expires; calls that were there are lost, others are not
        await until(pool, two)
        await until_keys(server, 1)
        three = start()
        await until(pool, two, three)

        server.stop()  # nobody needs it to go on
        await until(pool, two, three)
        server.start()
        four = start()
        await until(pool, two, three, four)

        four.terminate()  # it says good-bye
        await until(pool, two, three)
        assert four.wait() == 0
        await until_keys(server, 2)
    two.terminate()
    three.terminate()
    assert [two.wait(), three.wait()] == [0, 0]
    await until_keys(server, 0)


async def test_a_pool_that_shares_its_workers(
    start: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are announced, on a transport that others can use."""
    served = start()
    monkeypatch.setenv("WOOL_TRANSPORT", "grpc")
    monkeypatch.setenv("WOOL_DISCOVERY", "redis")
    async with wool.WorkerPool(size=1) as pool:
        await pool.wait(2, timeout=40)
        assert {worker.pid for worker in pool.workers} > {served.pid}
        await until_keys(server, 2)  # it can be called before it is announced


def test_a_server_that_is_not_there(start: Any, server: Any) -> None:
    """Says so at once, and in a line."""
    server.stop()
    command = [sys.executable, "-m", "wool.cli", "worker", "--discovery", "redis"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "cannot be announced, as the discovery 'redis' fails: ConnectionError" in done.stderr
    assert "Traceback" not in done.stderr
