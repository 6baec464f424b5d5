"""Routines in the kernel of a real notebook: their output is in the cell that has called them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

DEFINITIONS = """
import asyncio, pathlib, pdb, sys, wool

go = pathlib.Path({folder!r}) / "go"

@wool.routine
async def say(word, go):
    print("to say", word)
    while not go.exists():
        await asyncio.sleep(0.01)
    print(word)
    print("complaint", file=sys.stderr)

@wool.routine
async def stop(n):
    breakpoint()

@wool.routine
async def ask(n):
    pdb.set_trace()
    return n + 1

pool = await wool.WorkerPool(size=1, output="caller").__aenter__()
"""


class Notebook:
    """A kernel, and what its cells show, by their numbers."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._cells: list[str] = []
        self.shown: list[str] = []

    def run(self, code: str, answer: str | None = None) -> int:
        """Runs a cell, and answers what it asks for; returns its number."""
        self._cells.append(self._client.execute(code))
        self.shown.append("")
        if answer is not None:
            self._client.get_stdin_msg(timeout=30)
            self._client.input(answer)
        last = len(self._cells) - 1
        while True:
            message = self._client.get_iopub_msg(timeout=30)
            content = message["content"]
            number = self._cells.index(message["parent_header"]["msg_id"])
            self.shown[number] += content.get("text", "") + content.get("evalue", "")
            if number == last and content.get("execution_state") == "idle":
                return last


@contextmanager
def notebook() -> Generator[Notebook]:
    manager, client = start_new_kernel()
    try:
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def lines(text: str) -> list[str]:
    return [line.rpartition("] ")[2] for line in text.splitlines()]


def test_a_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call prints in its own cell while another one runs; `breakpoint()` says what does."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    with notebook() as book:
        book.run(DEFINITIONS.format(folder=str(folder)))
        first = book.run("task = asyncio.create_task(say('later', go))")
        second = book.run("go.touch(); await say('now', go); await task")
        told = book.shown[book.run("await stop(1)")]
        assert "breakpoint() has no terminal" in told
        assert "transport='memory'" in told
        book.run("await pool.__aexit__(None, None, None)")
        there = "async with wool.WorkerPool(size=1, transport='memory'): print(await ask(1))"
        told = book.shown[book.run(there, answer="c")]
        assert told.endswith("2\n")
    assert lines(book.shown[first]) == ["to say later", "later", "complaint"]
    assert lines(book.shown[second]) == ["to say now", "now", "complaint"]
