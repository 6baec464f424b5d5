"""`wool worker` in a process of its own, for tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faultkit import eventually

import wool

TOKEN = wool.Credentials.new_token()
CLI = [sys.executable, "-m", "wool.cli"]


def environment(**variables: str) -> dict[str, str]:
    """Of a process that can import the tests, and has the token."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "WOOL_TOKEN": TOKEN, **variables}


class Spoken:
    """What a `wool worker` says, read as it comes."""

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

        return await eventually(found, within=30, what=f"{text!r} in {self.lines}")

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


@pytest.fixture
def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)
    started: list[Served] = []

    def start(*arguments: str, **variables: str) -> Served:
        started.append(Served(folder, *arguments, **variables))
        return started[-1]

    yield start
    for served in started:
        served.close()
