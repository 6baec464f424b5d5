"""`breakpoint()` in routines: a debugger at the terminal of the program."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import alive
from support.serving import CLI
from support.terminals import Terminal
from support.waiting import until_sync

PROGRAM = """
import asyncio, os, sys, wool

@wool.routine
async def leaf(n):
    local = n * 2
    print("processes", os.getpid(), os.getppid(), flush=True)
    breakpoint()
    await asyncio.sleep(0)
    return local + 1

@wool.routine
async def nested(n):
    return await leaf(n)

@wool.routine
async def thread(n):
    def stand():
        breakpoint()
        return n * 2 + 1
    return await asyncio.to_thread(stand)

@wool.routine
async def twice(n):
    breakpoint()
    breakpoint()
    return n * 2 + 1

@wool.routine
async def steps(n):
    for i in range(2):
        breakpoint()
        yield i

async def main(what):
    async with wool.WorkerPool(size=1 if what == "cancelled" else 2) as pool:
        if what == "both":
            await pool.wait(2)
            async def all():
                return sum([value async for _, value in pool.broadcast(leaf, 10)])
            call = asyncio.create_task(all())
            while [c.state for c in await pool.calls()] != ["debugged"] * 2:
                await asyncio.sleep(0)
            print("both are there")
            print("result", await call)
        elif what == "stream":
            print("result", 20 + sum([i async for i in steps(1)]))
        elif what == "left":
            call = asyncio.create_task(leaf(10))
            while "debugged" not in {c.state for c in await pool.calls()}:
                await asyncio.sleep(0)
        elif what == "cancelled":
            call = asyncio.create_task(nested(10))
            while "debugged" not in {c.state for c in await pool.calls()}:
                await asyncio.sleep(0)
            call.cancel()
            ended, _ = await asyncio.wait([call], timeout=5)
            print("ended" if ended else "stands still")
            await asyncio.wait([call])
            print("result", call.cancelled())
        else:
            print("result", await globals()[what](10))

asyncio.run(main(sys.argv[1]))
"""


class Program(Terminal):
    """A program at a terminal of its own, in a session that outlives it."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        (folder / "program.py").write_text(PROGRAM)
        kept = ["sh", "-c", '"$@"; echo "exit $?"; exec sleep 3600', "sh"]
        command = [sys.executable, str(folder / "program.py"), *arguments]
        super().__init__([*kept, *command], WOOL_CANCEL_GRACE="1", **variables)

    def prompted(self) -> None:
        """Reads until the debugger waits for a line."""
        self.until(r"\(Pdb\) ")
        until_sync(lambda: not self.interrupts)

    def step(self, pattern: str) -> None:
        """Steps to a line: Python 3.13 and later begin at that of the breakpoint itself."""
        for _ in range(2):
            self.type("n\n")
            said = self.until(r"(?s)n\r?\n(.*?)\(Pdb\) ")[1]
            if re.search(pattern, said):
                return
        pytest.fail(f"no step leads to {pattern}")


@pytest.fixture
def programs() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def start(stack: contextlib.ExitStack, folder: Path, *arguments: str, **variables: str) -> Program:
    program = Program(folder, *arguments, **variables)
    stack.callback(program.close)
    return program


@pytest.mark.parametrize("which", ["leaf", "nested"])
def test_commands(which: str, programs: contextlib.ExitStack, folder: Path) -> None:
    """Values, steps to the end, frames of the user alone, and Ctrl-C, which is for the debugger."""
    program = start(programs, folder, which, WOOL_CONCURRENCY="1")
    program.until(r"leaf\(\) stands at a breakpoint in worker \d+")
    program.prompted()
    program.type("p local\n")
    program.until(r"20\r?\n")
    program.prompted()
    program.type("p lo\x03")
    program.until(r"--KeyboardInterrupt--")
    program.prompted()
    program.type("w\n")
    frames = program.until(r"(?s)w\r?\n(.*)\(Pdb\) ")[1]
    assert "leaf()" in frames
    assert frames.count(".py(") == 1, frames
    program.step("-> return local")
    program.type("n\n")
    program.until("result 21")
    program.until("exit 0")
    assert program.interrupts


@pytest.mark.parametrize(("which", "stops"), [("thread", 1), ("stream", 2), ("twice", 2)])
def test_other_places(which: str, stops: int, programs: contextlib.ExitStack, folder: Path) -> None:
    """A thread that a routine has started, steps of a stream, and a further breakpoint."""
    program = start(programs, folder, which)
    for _ in range(stops):
        program.until("stands at a breakpoint")
        program.prompted()
        program.type("c\n")
    program.until("result 21")
    program.until("exit 0")


def test_a_step_to_another_breakpoint(programs: contextlib.ExitStack, folder: Path) -> None:
    program = start(programs, folder, "twice")
    program.prompted()
    program.step("stands at a breakpoint")
    program.type("c\n")
    program.until("result 21")


def test_the_debugger_is_quit(programs: contextlib.ExitStack, folder: Path) -> None:
    """Ctrl-D raises in the routine, and so reaches the caller."""
    program = start(programs, folder, "leaf")
    program.prompted()
    program.type("\x04")
    program.until("BdbQuit")
    program.until("exit 1")


def test_two_at_once(programs: contextlib.ExitStack, folder: Path) -> None:
    """The debugger of another worker asks when the first call goes on."""
    program = start(programs, folder, "both")
    program.until(r"(?s)\A(?=.*both are there.*)(?=.*\(Pdb\) )")  # and forgets nothing
    assert program.shown.count("stands at a breakpoint") == 1
    workers = set[str]()
    for _ in range(2):
        workers.add(program.until(r"stands at a breakpoint in worker (\d+)")[1])
        program.prompted()
        program.type("p 'only', n\n")
        said = program.until(r"(?s)\('only', 10\)(.*?)\(Pdb\) ")[1]
        assert "stands" not in said
        program.type("c\n")
    program.until("result 42")
    assert len(workers) == 2
    program.until("exit 0")


def test_time_stands_still(programs: contextlib.ExitStack, folder: Path) -> None:
    """A cancel that waits does not give up after a second, and no slow loop is named."""
    program = start(programs, folder, "cancelled")
    program.prompted()
    said = program.until(r"(?s)(.*)(ended|stands still)")
    assert said[2] == "stands still"
    assert "kept the event loop" not in said[1]
    program.type("c\n")
    program.until("result True")


def test_the_caller_is_killed(programs: contextlib.ExitStack, folder: Path) -> None:
    program = start(programs, folder, "leaf")
    worker, caller = map(int, program.until(r"processes (\d+) (\d+)").groups())
    program.prompted()
    os.kill(caller, signal.SIGKILL)
    until_sync(lambda: not alive(worker))
    assert program.interrupts


def test_the_pool_is_left(programs: contextlib.ExitStack, folder: Path) -> None:
    program = start(programs, folder, "left", WOOL_SHUTDOWN_TIMEOUT="1")
    program.prompted()
    program.until("exit 0")
    assert program.interrupts


@pytest.mark.parametrize("hook", ["0", "builtins.print"])
def test_another_hook_is_used(hook: str, programs: contextlib.ExitStack, folder: Path) -> None:
    program = start(programs, folder, "leaf", PYTHONBREAKPOINT=hook)
    program.until("result 21")
    program.until("exit 0")


def test_there_is_no_terminal(folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(folder / "program.py"), "leaf"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, start_new_session=True
    )
    assert "RuntimeError: breakpoint() has no terminal" in done.stderr
    assert "transport='memory'" in done.stderr


REMOTE = """
import asyncio, sys, wool

@wool.routine
async def remote(n):
    breakpoint()
    return n + 1

async def main():
    async with wool.WorkerPool(size=0, discovery=[sys.argv[1]]):
        print("result", await remote(1))

asyncio.run(main())
"""


@pytest.mark.parametrize("hook", ["", "pdb.set_trace"])
def test_a_worker_of_others(hook: str, folder: Path) -> None:
    """It is off, with what to do, unless whoever starts the worker has chosen a debugger."""
    (folder / "remote.py").write_text(REMOTE)
    place = folder / "own"
    place.mkdir(mode=0o700)
    address = f"unix://{place}/worker"
    with subprocess.Popen(
        [*CLI, "worker", "--address", address, "--json"],
        env={**os.environ, "PYTHONBREAKPOINT": hook},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            assert worker.stdin is not None and worker.stdout is not None
            assert "serving" in worker.stdout.readline()
            worker.stdin.write("c\n")
            worker.stdin.flush()
            command = [sys.executable, str(folder / "remote.py"), address]
            done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        finally:
            worker.terminate()
    if hook:
        assert "result 2" in done.stdout, done
    else:
        assert "PYTHONBREAKPOINT=pdb.set_trace" in done.stderr
