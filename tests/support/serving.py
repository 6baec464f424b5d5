"""Workers in processes of their own: `wool worker`, or a script with a `wool.Worker`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import wool
from support.processes import Script
from support.waiting import until

TOKEN = wool.Credentials.new_token()
#: Its script: `python -m` would put the folder that it is started in on the path.
CLI = [str(Path(sys.executable).with_name("wool"))]

SERVE = """
import asyncio, sys, wool

async def main():
    async with wool.Worker(address=sys.argv[1], tags=sys.argv[2:]) as worker:
        print(worker.info.address, flush=True)
        await worker.serve()

asyncio.run(main())
"""


def environment(**variables: str) -> dict[str, str]:
    """Of a process that can import the tests, and has the token."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "WOOL_TOKEN": TOKEN, **variables}


class Spoken:
    """The lines that a `wool worker` says, read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with suppress(ValueError):  # whoever has killed it has closed the pipe
            for line in self.process.stderr:
                self.lines.append(line.rstrip())

    async def says(self, text: str) -> str:
        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        return await until(found, what=f"{text!r} in {self.lines}")

    async def address(self) -> str:
        line = await self.says("serves at")
        return line.partition("serves at ")[2].partition(",")[0]

    async def exit(self) -> int:
        """Waits for its end, and for all that it has said."""
        code = await asyncio.to_thread(self.process.wait, 30)
        await asyncio.to_thread(self._reader.join, 30)
        return code


class Served(Spoken):
    """`wool worker` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        super().__init__(
            subprocess.Popen(
                [*CLI, "worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env=environment(**variables),
            )
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(30)
        assert self.process.stderr is not None
        self.process.stderr.close()


@asynccontextmanager
async def workers(transport: str, count: int = 2, **variables: str) -> AsyncIterator[list[str]]:
    """Starts workers in an empty folder, which can import nothing of the tests."""
    started: list[Served] = []
    with tempfile.TemporaryDirectory(prefix="w") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOL_TOKEN", TOKEN)
        try:
            for number in range(count):
                place = f"unix://{folder}/{number}/w"
                address = place if transport == "unix" else f"{transport}://127.0.0.1:0"
                alone = {"PYTHONPATH": "", **variables}
                started.append(Served(Path(folder), "--address", address, **alone))
            yield [await served.address() for served in started]
        finally:
            for served in started:
                served.close()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)


@pytest.fixture
def start(folder: Path, token: None) -> Iterator[Any]:
    """Starts `wool worker`, which can import the tests."""
    started: list[Served] = []

    def start(*arguments: str, **variables: str) -> Served:
        started.append(Served(folder, *arguments, **variables))
        return started[-1]

    yield start
    for served in started:
        served.close()


@pytest.fixture
async def serving(folder: Path, token: None) -> AsyncIterator[Any]:
    """Starts scripts with workers; gives the process and the address of each."""
    scripts: list[Script] = []

    def start(address: str | None = None, *tags: str) -> tuple[Script, str]:
        place = folder / str(len(scripts))
        place.mkdir()
        (place / "s").mkdir(0o700)
        address = address or f"unix://{place}/s/w"
        path = {"PYTHONPATH": environment()["PYTHONPATH"]}
        scripts.append(Script(SERVE, place, address, *tags, env=path))
        return scripts[-1], scripts[-1].line()

    yield start
    for script in scripts:
        script.close()
