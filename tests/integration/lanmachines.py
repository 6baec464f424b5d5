"""Workers and callers on the machines of a network, as people start them: with a token, no more."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import wool
from support.network import Host
from support.serving import CLI, Spoken

CALLER = str(Path(__file__).with_name("lan_caller.py"))
TOKEN = wool.Credentials.new_token()


def environment(**more: str) -> dict[str, str]:
    """What the processes get: the token, and no other setting of ours."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WOOL_")}
    return {**plain, "WOOL_TOKEN": TOKEN, **more}


class Served(Spoken):
    """`wool worker` on a machine."""

    def __init__(self, host: Host, folder: Path, arguments: Sequence[str], **more: str) -> None:
        super().__init__(
            host.popen(
                [*CLI, "worker", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env=environment(**more),
            )
        )


class Caller:
    """A program on a machine that calls what it finds."""

    def __init__(self, host: Host, folder: Path, options: dict[str, Any], **more: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._said: list[str] = []
        self.process = host.popen(
            [sys.executable, CALLER, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment(**more),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(RuntimeError, ValueError):  # whoever has killed it has closed loop and pipe
            for line in self.process.stdout:
                self._loop.call_soon_threadsafe(self._hear, line)
            self._loop.call_soon_threadsafe(self._end)

    def _hear(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            self._said.append(line)
            return
        if told:
            self._asked.pop(told["number"]).set_result((told["told"], told["seconds"]))
        else:
            self._opened.set_result(None)

    def _end(self) -> None:
        for waiting in [self._opened, *self._asked.values()]:
            if not waiting.done():
                waiting.set_exception(AssertionError("".join(self._said) or "it has ended"))

    async def open(self) -> None:
        """Waits for its pool to be open."""
        async with asyncio.timeout(30):
            await self._opened

    def begin(self, *words: str) -> asyncio.Future[Any]:
        """Asks for something; the answer, and how many seconds it took, come later."""
        number = str(next(self._numbers))
        future = self._asked[number] = self._loop.create_future()
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([number, *words]) + "\n")
        self.process.stdin.flush()
        return future

    async def ask(self, *words: str, within: float = 30.0) -> Any:
        """Asks for something, and returns the answer."""
        async with asyncio.timeout(within):
            return (await self.begin(*words))[0]

    async def leave(self) -> str:
        """Has it close its pool and end; returns whatever it said beyond its answers."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await asyncio.to_thread(self.process.wait, 30) == 0
        await asyncio.to_thread(self._reader.join, 30)
        await asyncio.sleep(0)  # in which it hears the last line
        return "".join(self._said)
