"""Pools whose workers are started by another command than this interpreter's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

import wool
from support.waiting import until
from wool.abc import Launcher


@wool.routine
async def niceness() -> tuple[int, bytes]:
    return os.nice(0), os.read(0, 1)


class Nice(Launcher):
    """Starts workers of this machine that are in no hurry; the first one with the least."""

    slots = 2

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["nice", "-n", str(5 + slot), sys.executable, *arguments]


async def test_a_program_starts_workers_by_a_command_of_its_own() -> None:
    """A worker that is replaced gets the slot of the one that has ended."""
    own = os.nice(0)
    expected = [(own + 5, b""), (own + 6, b"")]
    async with wool.WorkerPool(launcher=Nice(), quorum=2) as pool:
        assert sorted([r async for _, r in pool.broadcast(niceness)]) == expected
        before = pool.workers
        os.kill(before[0].pid, 9)
        await until(lambda: before[0] not in pool.workers and len(pool.workers) == 2)
        assert sorted([r async for _, r in pool.broadcast(niceness)]) == expected


class Absent(Launcher):
    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["no-such-program", *arguments]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"launcher": "rocket"}, "There is no launcher 'rocket'. Installed are: local"),
        ({"launcher": 5}, "launcher must be a name or an instance of wool.abc.Launcher, not 5"),
        ({"launcher": Nice(), "size": 3}, "size=3 is more than the launcher has room for, 2"),
        ({"launcher": Absent()}, "there is no program 'no-such-program' here"),
    ],
)
async def test_what_cannot_start_workers(options: dict[str, Any], told: str) -> None:
    with pytest.raises(wool.ConfigurationError, match=told):
        async with wool.WorkerPool(**options):
            pytest.fail("the pool was opened")


@wool.routine
async def place() -> tuple[int, set[int]]:
    return os.nice(0), os.sched_getaffinity(0)


async def test_priority_and_cpus_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = min(os.sched_getaffinity(0))
    monkeypatch.setenv("WOOL_LOCAL__NICE", "3")
    monkeypatch.setenv("WOOL_LOCAL__CPU_AFFINITY", str(cpu))
    async with wool.WorkerPool(size=1):
        assert await place() == (os.nice(0) + 3, {cpu})
        monkeypatch.setenv("WOOL_LOCAL__CPU_AFFINITY", f"{cpu},100000")
        with pytest.raises(wool.ConfigurationError, match="there is no CPU 100000 that"):
            wool.WorkerPool(size=1)
        assert await place() == (os.nice(0) + 3, {cpu})
