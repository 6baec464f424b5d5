"""`wool worker`: started, found, drained and stopped as an operator would."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faultjobs import add, hold
from faultkit import eventually, pid_in

import wool

TOKEN = secrets.token_urlsafe(32)


class Served:
    """`wool worker` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        path = os.pathsep.join(filter(None, sys.path))  # so that it can import the tests
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wool.cli", "worker", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "WOOL_TOKEN": TOKEN, **environment},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    async def says(self, text: str) -> str:
        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        return await eventually(found, within=20, what=f"{text!r} in {self.lines}")

    async def address(self) -> str:
        line = await self.says("serves at")
        return line.partition("serves at ")[2].partition(",")[0]

    async def exit(self) -> int:
        code = await asyncio.to_thread(self.process.wait, 30)
        self._reader.join(5)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)
    started: list[Served] = []

    def start(*arguments: str, **environment: str) -> Served:
        started.append(Served(folder, *arguments, **environment))
        return started[-1]

    yield start
    for served in started:
        served.close()


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_it_serves_and_drains(scheme: str, start: Any, folder: Path) -> None:
    served = start("--address", f"{scheme}://127.0.0.1:0", "--tag", "gpu", "--tag", "big")
    address = await served.address()
    assert (await served.says("serves at")).endswith("tags big gpu")
    async with wool.WorkerPool(discovery=[address]) as pool:
        assert await add(1, 2) == 3
        assert pool.workers[0].tags == {"gpu", "big"}
        held = asyncio.create_task(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        served.process.send_signal(signal.SIGTERM)
        await served.says("SIGTERM: takes no more calls")
        assert not held.done()
        (folder / "go").touch()
        assert await held == served.process.pid
    assert await served.exit() == 0
    assert served.lines[-1].endswith("wool: left")


async def test_asked_twice_it_cancels(start: Any, folder: Path) -> None:
    served = start("--address", f"unix://{folder}/s/w")
    async with wool.WorkerPool(discovery=[await served.address()]):
        held = asyncio.create_task(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        served.process.send_signal(signal.SIGINT)
        await served.says("SIGINT: takes no more calls")
        served.process.send_signal(signal.SIGINT)
        with pytest.raises((wool.WorkerStopped, asyncio.CancelledError)):
            await held
    assert await served.exit() == 0
    assert served.lines[-1].endswith("left in a hurry")


async def test_systemd_is_told(start: Any, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(20)
        served = start("--address", f"unix://{folder}/s/w", NOTIFY_SOCKET=str(folder / "notify"))
        assert await asyncio.to_thread(notified.recv, 100) == b"READY=1"
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(notified.recv, 100) == b"STOPPING=1"
        assert await served.exit() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "ws://0.0.0.0:0"], "takes credentials"),
        (["--address", "nonsense"], "does not say which transport"),
        (["--address", "ws://127.0.0.1:0", "--advertise", "here"], "does not say which transport"),
        (["--discovery", "statik"], "Did you mean 'static'"),
    ],
    ids=["no credentials", "no address", "no advertised address", "discovery"],
)
async def test_what_cannot_work_is_said_in_a_line(
    arguments: list[str], message: str, start: Any
) -> None:
    served = start(*arguments, WOOL_TOKEN="")
    assert await served.exit() == 1
    assert len(served.lines) == 1 and message in served.lines[0]
