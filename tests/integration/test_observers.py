"""Observers are told of calls and streams, here and on workers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wool
from support.jobs import add, count, fib, hold
from support.pools import TRANSPORTS, opened
from support.waiting import until
from wool.plugins import CallInfo, Outcome, hookimpl, register


@wool.routine
async def fail() -> None:
    raise KeyError("on purpose")


class Log:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.started: list[CallInfo] = []
        self.finished: list[tuple[CallInfo, Outcome]] = []

    @hookimpl
    def wool_call_started(self, call: CallInfo) -> None:
        self.started.append(call)

    @hookimpl
    def wool_call_finished(self, call: CallInfo, outcome: Outcome) -> None:
        self.finished.append((call, outcome))

    def said(self) -> list[tuple[str, str]]:
        assert [call for call, _ in self.finished] == self.started
        return [(call.routine.partition(":")[2], end.status) for call, end in self.finished]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    with register(log):
        yield log


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_calls_and_streams(transport: str, log: Log, folder: Path) -> None:
    async with opened(1, transport=transport) as pool:
        assert await add(1, 2) == 3
        with pytest.raises(KeyError):
            await fail()
        held = asyncio.create_task(hold(folder / "pid", folder / "go"))
        await until((folder / "pid").exists)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert [n async for n in count(3)] == [0, 1, 2]
        stream = count(3)
        await anext(stream)
        await stream.aclose()
        worker = pool.workers[0]
    assert log.said() == [
        ("add", "returned"),
        ("fail", "raised"),
        ("hold", "cancelled"),
        ("count", "returned"),
        ("count", "cancelled"),
    ]
    assert [call.stream for call in log.started] == [False, False, False, True, True]
    assert len({call.id for call in log.started}) == 5
    ends = [end for _, end in log.finished]
    assert all(end.worker is not None and end.worker.id == worker.id for end in ends)
    assert isinstance(ends[1].error, KeyError)
    assert all(end.seconds >= 0 for end in ends)


async def test_nothing_is_told_of_local_calls(log: Log) -> None:
    assert await add(1, 2) == 3
    assert not log.started


OBSERVER = """
import os
from wool.plugins import hookimpl

@hookimpl
def wool_call_finished(call, outcome):
    with open({path!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{call.routine.split(':')[1]}} {{call.parent is None}}\\n")
"""


async def test_calls_that_routines_make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is loaded on workers as well."""
    (folder / "wooltestobserver.py").write_text(OBSERVER.format(path=str(folder / "log")))
    monkeypatch.syspath_prepend(str(folder))
    import wooltestobserver  # type: ignore[import-not-found]

    with register(wooltestobserver):
        async with opened(2):
            assert await fib(3) == 2
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    assert [line[1] for line in lines] == ["fib"] * 5
    assert sorted(line[2] for line in lines) == ["False"] * 4 + ["True"]
    assert len({line[0] for line in lines}) > 1
    del sys.modules["wooltestobserver"]
