"""`wool debug`: a debugger at this terminal, in a process that was not prepared for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publishing.kit import ROOT, Environment, interpreter
from support.serving import CLI
from support.terminals import Terminal
from support.waiting import until_sync

pytestmark = pytest.mark.timeout(180)  # the first test makes an environment

PROGRAM = """
import asyncio, contextlib, ctypes, os, sys, time, wool

HERE = os.path.dirname(__file__)

def going():
    return not os.path.exists(HERE + "/over")

@wool.routine
async def traces():
    frame, traced = sys._getframe(), []
    while frame is not None:
        traced.append(frame.f_trace)
        frame = frame.f_back
    return sys.gettrace() is None and set(traced) == {None}

@wool.routine
async def identify():
    return os.getpid()

@wool.routine
async def spin(n):
    total = 0
    while going():
        total += n
    return total > 0

async def inner(n):
    local = n * 2
    while going():
        await asyncio.sleep(0.01)
        local += 1
    return local > 0

@wool.routine
async def wait(n):
    return await inner(n)

@wool.routine
async def sleep(n):
    began = time.monotonic()
    time.sleep(6)
    return time.monotonic() - began > 5

@wool.routine
async def hold(n):
    with open(HERE + "/fifo", "rb") as fifo:
        ctypes.PyDLL(None).read(fifo.fileno(), ctypes.create_string_buffer(1), 1)  # with the lock
    return True

@wool.routine
async def steps(n):
    for i in range(2):
        yield i
        n += i

@wool.routine
async def brief(n):
    doubled = n * 2
    return doubled

async def main(what):
    async with wool.WorkerPool(size=1) as pool:
        print(os.getpid(), await identify(), flush=True)
        if what == "idle":
            while going():
                await brief(4)
                await asyncio.sleep(0.01)
            print(True)
        elif what == "steps":
            async with contextlib.aclosing(steps(4)) as stream:
                await anext(stream)
                while going():
                    await asyncio.sleep(0.01)
                print(await anext(stream) == 1)
        elif what == "left":
            call = asyncio.create_task(wait(4))
            while "debugged" not in {c.state for c in await pool.calls()}:
                await asyncio.sleep(0.01)
            return
        else:
            print(await globals()[what](4))
        print(await traces())

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment of Python 3.14 with Wool."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    ours = cache / "wool-python3.14" / "usr" / "bin" / "python3.14"  # by .ci/python314
    found = interpreter("3.14") or (str(ours) if ours.exists() else None)
    if found is None:
        missing = pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip
        missing("there is no Python 3.14")
    environment = Environment(tmp_path_factory.mktemp("python") / "environment", found)
    environment.install("-e", ROOT / "wool-core")
    return environment.bin


class Running:
    """A program that calls one worker, and what `wool debug` makes of both."""

    def __init__(self, python: Path, folder: Path, what: str, **variables: str) -> None:
        self.python = python
        self.over = folder / "over"
        self.temporary = folder / "t"
        self.temporary.mkdir()
        self.script = folder / "program.py"
        self.script.write_text(PROGRAM)
        self.process = subprocess.Popen(
            [str(python / "python"), str(self.script), what],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "WOOL_LOOP": "asyncio", **variables},
            text=True,
        )
        assert self.process.stdout is not None
        self.pid, self.worker = map(int, self.process.stdout.readline().split())
        self.clients = contextlib.ExitStack()

    def calls(self) -> dict[str, Any]:
        """What `wool ps` says of its calls, by the names of routines."""
        command = [str(self.python / "wool"), "ps", "--json", str(self.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        processes = json.loads(done.stdout or "[]")
        return {call["routine"]: call for process in processes for call in process["serves"]}

    def call(self, routine: str) -> str:
        """The id of a call, which has begun."""
        return until_sync(
            lambda: (found := self.calls().get(routine)) and found["stack"] and found["id"]
        )

    def debug(self, target: object, *options: str) -> Terminal:
        """`wool debug`, at a terminal."""
        command = [str(self.python / "wool"), "debug", str(target), *options]
        client = Terminal(command, TERM="dumb", TMPDIR=str(self.temporary))
        self.clients.callback(client.close)
        return client

    def finish(self) -> None:
        """Lets it end, which it does as if there had been no debugger."""
        self.over.touch()
        said, _ = self.process.communicate(timeout=50)
        assert (said.split(), self.process.returncode) == (["True", "True"], 0), said

    def close(self) -> None:
        self.over.touch()
        self.clients.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(python: Path, folder: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def start(what: str, **variables: str) -> Running:
            running = Running(python, folder, what, **variables)
            stack.callback(running.close)
            return running

        yield start


def answer(client: Terminal, command: str) -> str:
    """What the debugger says to a command, when it has asked for one."""
    client.until(r"\(Pdb\) ")
    client.type(f"{command}\n")
    client.until(re.escape(command) + r"\r?\n")
    return client.until(r"(?s)\A(.*?)(?=\(Pdb\) )")[1]


def leave(client: Terminal, command: str = "q\n") -> None:
    client.until(r"\(Pdb\) ")
    client.type(command)
    client.until(r"process \d+ runs on")
    assert client.process.wait(30) == 0


@pytest.mark.parametrize("by", ["pid", "call"])
def test_a_routine_that_runs(by: str, start: Any) -> None:
    """It is stopped at its line, and followed from there; `wool ps` shows that."""
    program = start("spin")
    client = program.debug(program.worker if by == "pid" else program.call("spin"))
    client.until(r"spin\(\) runs in worker \d+")
    assert answer(client, "p n, total > 1000") == "(4, True)\r\n"
    frames = answer(client, "w")
    assert "spin()" in frames
    assert frames.count(".py(") == 1, frames
    assert program.calls()["spin"]["state"] == "debugged"
    assert "spin()" in answer(client, "n")
    assert "no such" not in answer(client, "!n = 5")
    leave(client)
    assert program.calls()["spin"]["state"] != "debugged"
    program.finish()


def test_a_call_that_waits(start: Any) -> None:
    """Its frames are those that await each other; steps begin when it goes on."""
    program = start("wait")
    client = program.debug(program.call("wait"))
    client.until(r"wait\(\) waits in worker \d+")
    assert answer(client, "p n, local >= 8") == "(4, True)\r\n"
    frames = answer(client, "w")
    assert frames.index("wait()") < frames.index("inner()")
    assert frames.count("program.py(") == 2
    assert "await inner(n)" in answer(client, "up")
    assert "await asyncio.sleep" in answer(client, "down")
    assert "local += 1" in answer(client, "n")
    frames = answer(client, "w")
    assert frames.index("wait()") < frames.index("inner()")
    assert frames.count(".py(") == 2
    leave(client)
    program.finish()


def test_a_stream_between_two_steps(start: Any) -> None:
    program = start("steps")
    until_sync(lambda: program.calls().get("steps", {}).get("state") == "suspended")
    client = program.debug(program.calls()["steps"]["id"])
    assert answer(client, "p n, i") == "(4, 0)\r\n"
    client.until(r"\(Pdb\) ")
    client.type("n\n")
    program.over.touch()
    client.until(r"-> n \+= i")
    leave(client, "c\n")
    program.finish()


def test_a_routine_that_blocks(start: Any) -> None:
    """A worker that waits in the operating system is stopped there."""
    program = start("sleep")
    client = program.debug(program.worker)
    assert answer(client, "p time.monotonic() - began < 5") == "True\r\n"
    assert "time.sleep" in answer(client, "l")
    leave(client)
    program.finish()


def test_breakpoints(start: Any) -> None:
    """A worker with nothing to do is followed into the next call; Ctrl-C leaves it to itself."""
    program = start("idle")
    client = program.debug(program.worker)
    line = PROGRAM.splitlines().index("    return doubled") + 1
    assert "Breakpoint" in answer(client, f"b {program.script}:{line}")
    assert "return doubled" in answer(client, "c")
    assert "doubled" in answer(client, "c")
    client.until(r"\(Pdb\) ")
    client.type("p dou\x03")
    client.until("--KeyboardInterrupt--")
    client.until(r"\(Pdb\) ")
    client.type("condition 1 False\nc\n")
    client.until(r"(?s)New condition.*c\r?\n")
    client.type("\x03")
    client.until(r"process \d+ runs on")
    program.finish()


def test_a_program(start: Any) -> None:
    """The caller is no worker; its loop has nothing to do."""
    program = start("wait")
    client = program.debug(program.pid)
    client.until(rf"process {program.pid}")
    assert answer(client, "p sys.argv[1:]") == "['wait']\r\n"
    assert "asyncio.run(main" in answer(client, "w")
    leave(client)
    program.finish()


@pytest.mark.parametrize(
    ("how", "which"),
    [
        ("q", "wait"),
        ("continue", "spin"),
        ("ctrl-d", "spin"),
        ("closed", "wait"),
        ("killed", "spin"),
    ],
)
def test_leaving(how: str, which: str, start: Any) -> None:
    """The call goes on, nothing traces it, and no file is left."""
    program = start(which)
    client = program.debug(program.call(which))
    answer(client, "n")
    if how == "closed":
        client.hang_up()
    elif how == "killed":
        client.process.kill()
    else:
        leave(client, {"q": "q\n", "continue": "c\n", "ctrl-d": "\x04"}[how])
    until_sync(lambda: program.calls()[which]["state"] != "debugged")
    assert list(program.temporary.iterdir()) == []
    program.finish()


def test_the_pool_is_left(start: Any) -> None:
    """The debugger ends, and the call is cancelled."""
    program = start("left", WOOL_SHUTDOWN_TIMEOUT="1")
    client = program.debug(program.call("wait"))
    client.until(r"\(Pdb\) ")
    assert program.process.wait(30) == 0
    client.type("p 1\n")
    client.until("process")
    assert client.process.wait(30) == 0


# What cannot be debugged


def refused(client: Terminal) -> str:
    said = client.until(r"(?s)wool: (.*)\n")[1]
    assert client.process.wait(30) == 1
    return " ".join(said.split())


def test_another_debugger(start: Any) -> None:
    program = start("spin")
    first = program.debug(program.worker)
    first.until(r"\(Pdb\) ")
    assert "has another debugger" in refused(program.debug(program.worker))
    first.type("q\n")
    first.until("runs on")
    program.finish()


def test_c_code_keeps_the_lock(start: Any, folder: Path) -> None:
    """The command gives up, and nothing of it happens when the lock is free again."""
    os.mkfifo(folder / "fifo")
    program = start("hold")
    with (folder / "fifo").open("wb") as fifo:
        assert "has run no Python code" in refused(program.debug(program.worker, "--timeout", "1"))
        fifo.write(b".")
    program.finish()


def test_what_is_switched_off(start: Any) -> None:
    program = start("spin", PYTHON_DISABLE_REMOTE_DEBUG="1")
    assert "PYTHON_DISABLE_REMOTE_DEBUG" in refused(program.debug(program.worker))
    program.finish()


def test_targets_that_are_none(start: Any) -> None:
    """One message each: no such process or call, no Python, another Python, another user."""
    program = start("spin")
    with contextlib.ExitStack() as stack:

        def sleeping(*command: str, **options: Any) -> int:
            process = subprocess.Popen(command, **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process.pid

        gone = subprocess.Popen(["true"])
        gone.wait()
        assert "no process" in refused(program.debug(gone.pid))
        assert "no process" in refused(program.debug(10**30))
        assert "has the call nothing-1" in refused(program.debug("nothing-1"))
        assert "has to run Python 3.14" in refused(program.debug(sleeping("sleep", "600")))
        other = sleeping(sys.executable, "-c", "import time; time.sleep(600)")
        if sys.version_info < (3, 14):
            assert "has to run Python 3.14" in refused(program.debug(other))
        if os.geteuid() == 0:
            theirs = sleeping("sleep", "600", user=65534, group=65534, extra_groups=[])
            assert "is another user's" in refused(program.debug(theirs))
    program.finish()


def test_a_process_without_wool(start: Any, tmp_path: Path) -> None:
    program = start("spin")
    script = tmp_path / "bare.py"
    script.write_text("print(1, flush=True)\nwhile True: pass")
    command = [str(program.python / "python"), "-S", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert "cannot import wool-core" in refused(program.debug(process.pid))
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == b""
    program.finish()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python can")
def test_an_older_python() -> None:
    done = subprocess.run([*CLI, "debug", "1"], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "needs Python 3.14" in done.stderr
