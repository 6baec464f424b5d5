"""Output and records of routines reach those who have called them, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add
from support.pools import CARRIERS, opened
from support.processes import Script
from support.serving import environment
from support.waiting import until
from wool._client import output
from wool._protocol.frames import OUTPUT_BOUND

pytestmark = pytest.mark.asyncio

logger = logging.getLogger("app.jobs")


@wool.routine
async def speak(text: str) -> None:
    print(text, "out")
    print(f"{text} err\nand more", file=sys.stderr)
    warnings.warn(f"{text} warning", stacklevel=1)
    await asyncio.to_thread(print, text, "thread")
    sys.stdout.write(f"{text} unended")


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@wool.routine
async def log() -> None:
    logger.debug("too fine")
    try:
        raise LookupError("nothing there")
    except LookupError:
        extra = {"user": "ada", "count": 3, "odd": Odd(), "huge": 1 << 80}
        logger.info("%d of %s", 2, "three", extra=extra, exc_info=True)


class Slow:
    """An argument that turns into text after another record was logged."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.other = threading.Event()

    def __str__(self) -> str:
        self.begun.set()
        return "slow" if self.other.wait(30) else "too slow"


@wool.routine
async def log_badly() -> None:
    logger.warning("%d", "no number")
    slow = Slow()
    logged = asyncio.create_task(asyncio.to_thread(logger.warning, "%s", slow))
    await asyncio.to_thread(slow.begun.wait)
    logger.warning("quick")
    slow.other.set()
    await logged


@wool.routine
async def count(n: int) -> AsyncGenerator[int]:
    for i in range(n):
        print("step", i)
        yield i


@wool.routine(prefetch=8)
async def ahead(n: int) -> AsyncGenerator[int]:
    for i in range(n):
        print("step", i)
        yield i


async def hop(left: int) -> str:
    """Goes from worker to worker, each of which has a tag of its own."""
    print("hops left:", left)
    logger.warning("logged at %d", left)
    return await (hop_b, hop_c)[2 - left](left - 1) if left else "done"


@wool.routine(tags={"a"})
async def hop_a(left: int) -> str:
    return await hop(left)


@wool.routine(tags={"b"})
async def hop_b(left: int) -> str:
    return await hop(left)


@wool.routine(tags={"c"})
async def hop_c(left: int) -> str:
    return await hop(left)


@wool.routine
async def chime() -> None:
    logger.warning("chime")


@wool.routine
async def chat(name: str, other: str, folder: Path) -> None:
    """Prints together with another one."""
    (folder / name).touch()
    while not (folder / other).exists():
        await asyncio.sleep(0.01)
    for i in range(300):
        print(name, "says", i)
        await asyncio.sleep(0)


@wool.routine
async def flood(until: Path) -> int:
    """Prints faster than anybody reads; returns how many lines of 2 kB."""
    lines, line = 0, "x" * 1999
    while not until.exists():
        for _ in range(100):
            print(line)
        lines += 100
        await asyncio.sleep(0)
    return lines


@wool.routine
async def wait(path: Path) -> None:
    print("begun")
    path.touch()
    try:
        await asyncio.sleep(3600)
    finally:
        print("last words")


@wool.routine(tags={"c"})
async def aside() -> None:
    """Prints where no call is known: in a thread, in a program and in a forked process."""
    thread = threading.Thread(target=print, args=("bare thread",), kwargs={"file": sys.stderr})
    thread.start()
    thread.join()
    subprocess.run(["sh", "-c", "echo program >&2"], check=True)
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        print("forked", file=sys.stderr, flush=True)
        os._exit(0)
    print("in the call", file=sys.stderr)


def texts(output: str, routine: str) -> list[str]:
    """The lines without their marks, which are those of a routine on a worker."""
    mark = re.compile(rf"\[{routine}, worker \d+ on [^\]]+\] ")
    assert all(mark.match(line) for line in output.splitlines()), output
    return [mark.sub("", line) for line in output.splitlines()]


@pytest.mark.parametrize("transport", CARRIERS)
async def test_what_is_printed(transport: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(1, transport=transport, output="caller"):
        await speak("hello")
        out, err = capsys.readouterr()
        assert texts(out, "speak") == ["hello out", "hello thread", "hello unended"]
        assert texts(err, "speak")[:2] == ["hello err", "and more"]
        assert "UserWarning: hello warning" in texts(err, "speak")[2]
        async for i in count(3):
            assert texts(capsys.readouterr().out, "count") == [f"step {i}"]
        async for i in ahead(3):
            print("got", i)
        lines = [line.rpartition("] ")[2] for line in capsys.readouterr().out.splitlines()]
        assert sorted(lines) == [f"got {i}" for i in range(3)] + [f"step {i}" for i in range(3)]
        assert all(lines.index(f"step {i}") < lines.index(f"got {i}") for i in range(3))


async def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with opened(1, output="caller"):
            await log()
    [record] = [record for record in caplog.records if record.name == "app.jobs"]
    assert record.levelno == logging.INFO
    assert record.getMessage() == "2 of three"
    given = vars(record)
    assert (given["user"], given["count"], given["huge"]) == ("ada", 3, str(1 << 80))
    assert "Odd object" in given["odd"]
    assert given["wool_routine"] == "log"
    assert given["wool_worker"].startswith("worker ")
    assert record.process != os.getpid()
    assert "LookupError: nothing there" in logging.Formatter().format(record)


async def test_records_that_make_trouble(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with other handlers a record without a text is no error, and none waits for another."""
    async with opened(1, output="caller"):
        await log_badly()
    assert caplog.messages == ["quick", "slow"]
    assert "--- Logging error ---" in texts(capsys.readouterr().err, "log_badly")


async def test_three_hops(
    start: Any, folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that nobody's pool has started keep nothing of it; that is what they do unasked."""
    served = [
        start("--address", f"unix://{folder}/{tag}/w", "--tag", tag) for tag in ("a", "b", "c")
    ]
    async with wool.WorkerPool(discovery=[await each.address() for each in served]) as pool:
        await pool.wait(3)
        assert await hop_a(2) == "done"
        assert texts(capsys.readouterr().out, "hop_.") == [f"hops left: {2 - i}" for i in range(3)]
        said = [(r.getMessage(), vars(r)["wool_worker"]) for r in caplog.records]
        pids = [f"worker {each.process.pid}" for each in served]
        assert [(text, worker.partition(" on ")[0]) for text, worker in said] == [
            (f"logged at {2 - i}", pids[i]) for i in range(3)
        ]
        await aside()
        assert texts(capsys.readouterr().err, "aside") == ["in the call"]
        for line in ("bare thread", "program", "forked"):
            await served[2].says(line)
    said = "\n".join(line for each in served for line in each.lines)
    assert not re.search(r"hops left|logged at|in the call", said)


CALLER = """
import asyncio, pathlib, sys, wool
from integration.test_output import chat

async def main():
    async with wool.WorkerPool(discovery=[sys.argv[1]]):
        await chat(sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]))

asyncio.run(main())
"""


async def test_two_callers_at_once(start: Any, folder: Path) -> None:
    served = start("--address", f"unix://{folder}/s/w")
    address, variables = await served.address(), environment()
    names = [("ann", "bob"), ("bob", "ann")]
    callers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CALLER, address, *pair, str(folder)),
            stdout=subprocess.PIPE,
            env=variables,
        )
        for pair in names
    ]
    for (name, _), caller in zip(names, callers, strict=True):
        out = (await caller.communicate())[0].decode()
        assert texts(out, "chat") == [f"{name} says {i}" for i in range(300)]


class Counting(io.StringIO):
    """Counts the lines of a flood, and those that are said to have been dropped."""

    def __init__(self) -> None:
        self.shown = 0
        self.dropped = 0

    def write(self, text: str) -> int:
        self.shown += text.count("xxx\n")
        self.dropped += sum(map(int, re.findall(r"\((\d+) lines were dropped", text)))
        return len(text)


@pytest.mark.parametrize(
    ("transport", "waiting"), [*((each, False) for each in CARRIERS), ("unix", True)]
)
async def test_a_flood(
    transport: str, waiting: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on beside it, and each line is shown or counted.

    Args:
        waiting: whether the caller never says that more may come.
    """
    if waiting:
        monkeypatch.setattr(output, "REST", 1e6)
    seen, bound = Counting(), OUTPUT_BOUND // 2000
    async with opened(1, transport=transport, output="caller"):
        with contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen):
            flooding = asyncio.create_task(flood(folder / "over"))
            others = 0
            while others < 20 or not (waiting or seen.shown > bound):
                assert await add(others, 1) == others + 1
                others += 1
            (folder / "over").touch()
            lines = await flooding
    assert seen.shown + seen.dropped == lines
    assert seen.shown <= bound or not waiting


async def test_last_words_of_a_cancelled_call(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(1, output="caller"):
        waiting = asyncio.create_task(wait(folder / "begun"))
        await until((folder / "begun").exists, what="the call to begin")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert texts(capsys.readouterr().out, "wait") == ["begun", "last words"]


async def test_a_handler_that_calls(caplog: pytest.LogCaptureFixture) -> None:
    """Records of a handler's own calls are not shown: they would be handled again, and so on."""
    calls: list[asyncio.Task[None]] = []

    class Calling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            calls.append(asyncio.create_task(chime()))

    handler = Calling()
    logger.addHandler(handler)
    try:
        async with opened(1, output="caller"):
            await chime()
            assert await asyncio.gather(*calls) == [None]
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == ["chime"]


SETTING = """
import asyncio, logging, sys, wool

@wool.routine
async def say():
    print("said")
    logging.info("informed")
    logging.warning("warned")
    logging.basicConfig(level=logging.CRITICAL)
    return isinstance(sys.stdout, sys.__stdout__.__class__)

async def main():
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    async with wool.WorkerPool(size=1):
        print("real" if await say() else "stand-in")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("output", "expected", "errors"),
    [
        ("", "said\nreal", "WARNING:root:warned"),
        ("worker", "said\nreal", "WARNING:root:warned"),
        ("off", "stand-in", ""),
        ("caller", "[say, worker N on H] said\nstand-in", "INFO informed\nWARNING warned"),
    ],
)
async def test_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, output: str, expected: str, errors: str
) -> None:
    """By default a pool's own workers write to what they have inherited, as they always did."""
    monkeypatch.setenv("WOOL_OUTPUT", output)
    with Script(SETTING, folder) as script:
        assert re.sub(r"worker \d+ on [^\]]+", "worker N on H", script.output()) == expected
        assert script.stderr.strip() == errors
