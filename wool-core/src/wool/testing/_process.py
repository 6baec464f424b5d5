"""The other process in a test: both its own side and the side of the test."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from wool.testing._kit import soon

STARTING = 30.0
"""Seconds that a process may take to start."""


class Process:
    """Another process, which has the same suite and does what a module's `play` says.

    Args:
        suite: of the test.
        module: where `play` is.
        patience: seconds that it may take to answer, besides what it takes to start.
        order: what to do, as `play` understands it.
    """

    def __init__(self, suite: object, module: str, patience: float, **order: Any) -> None:
        kind = type(suite)
        assert "<locals>" not in kind.__qualname__, "a suite must be a class of a module"
        message = {
            "path": sys.path,
            "module": kind.__module__,
            "file": os.path.abspath(inspect.getfile(kind)),
            "suite": kind.__qualname__,
            "order": order,
        }
        program = f"from wool.testing._process import main; from {module} import play; main(play)"
        self._patience = patience
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(message)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.kill, self.signal = self._process.kill, self._process.send_signal

    async def line(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        reading = asyncio.to_thread(self._process.stdout.readline)
        said = await soon(reading, "starting a process", STARTING + self._patience)
        said = said.decode().strip()
        assert said, "the other process has failed; its stderr says why"
        return said

    def say(self, line: str) -> None:
        """Tells it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await asyncio.to_thread(self._process.communicate)


Play = Callable[[Any, dict[str, Any], "asyncio.Queue[str]"], Coroutine[Any, Any, None]]
"""Gets the suite, the order, and the lines that it is told."""


def main(play: Play) -> None:
    """Does what the order on the command line says, until the test's process lets go of us."""
    message = json.loads(sys.argv[1])
    sys.path[:] = message["path"]
    asyncio.run(_run(play, _load(message), message["order"]))


async def _run(play: Play, suite: Any, order: dict[str, Any]) -> None:
    told = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(told.put_nowait, line.strip())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    await play(suite, order, told)


def _load(message: dict[str, Any]) -> Any:
    """Imports the suite from its file: pytest may import modules that nobody else can name."""
    spec = importlib.util.spec_from_file_location(message["module"], message["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[message["module"]] = module
    spec.loader.exec_module(module)
    return functools.reduce(getattr, message["suite"].split("."), module)()  # type: ignore[operator]


def say(line: str) -> None:
    """Tells the test something."""
    print(line, flush=True)  # noqa: T201
