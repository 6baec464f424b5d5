"""Pools with workers of several kinds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import hold, pid
from support.pools import CARRIERS, pids
from support.waiting import until

pytestmark = pytest.mark.timeout(60)

started = os.environ.get("WOOL_TESTS_DEVICE", "none"), sys.flags.optimize
"""The device and the flag that there are when this module is imported."""


@wool.routine(tags={"gpu"})
async def infer() -> tuple[str, int]:
    return os.environ["WOOL_TESTS_DEVICE"], os.getpid()


@wool.routine(tags={"cpu"})
async def prepare() -> tuple[Any, int, Any]:
    (_, there) = await infer()
    return started, there, wool.current_worker().state


@wool.routine
async def look() -> tuple[Any, int, Any]:
    return started, os.nice(0), wool.current_worker().state


@asynccontextmanager
async def model() -> AsyncGenerator[str]:
    yield "model"


@asynccontextmanager
async def nothing() -> AsyncGenerator[str]:
    yield "nothing"


class Nice(wool.abc.Launcher):
    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["nice", "-n", "5", sys.executable, *arguments]


GROUPS = [
    wool.Group(
        tags={"gpu"},
        environment={"WOOL_TESTS_DEVICE": "3", "PYTHONOPTIMIZE": "1"},
        launcher=Nice(),
        lifespan=model,
    ),
    wool.Group(size=2, tags={"cpu"}),
]


@pytest.mark.parametrize("transport", CARRIERS)
async def test_workers_of_two_kinds(transport: str) -> None:
    async with wool.WorkerPool(
        groups=GROUPS,
        quorum=3,
        transport=transport,
        tags={"all"},
        environment={"WOOL_TESTS_DEVICE": "0"},
        lifespan=nothing,
    ) as pool:
        kinds = sorted([sorted(worker.tags) for worker in pool.workers])
        assert kinds == [["all", "cpu"], ["all", "cpu"], ["all", "gpu"]]
        seen = {worker.id: result async for worker, result in pool.broadcast(look)}
        for worker in pool.workers:
            gpu = "gpu" in worker.tags
            nice = os.nice(0)
            expected = (("3", 1), nice + 5, "model") if gpu else (("0", 0), nice, "nothing")
            assert seen[worker.id] == expected
        with pytest.raises(wool.NoWorkersAvailable, match="asks for the tags cpu, gpu, which no"):
            await wool.routine(tags={"cpu", "gpu"})(pid.__wrapped__)()
        (gpu,) = [worker for worker in pool.workers if "gpu" in worker.tags]
        assert await infer() == ("3", gpu.pid)
        assert await prepare() == (("0", 0), gpu.pid, "nothing")
        os.kill(gpu.pid, signal.SIGKILL)
        await until(lambda: gpu.pid not in pids(pool))
        device, again = await infer()  # in another one of the same kind
        assert (device, again != gpu.pid) == ("3", True)


async def test_each_kind_has_its_own_limit_and_size(folder: Path) -> None:
    """One that grows does so for its own calls."""
    groups = [
        wool.Group(size=(0, 2), tags={"gpu"}, concurrency=1),
        wool.Group(tags={"cpu"}, concurrency=2),
    ]
    work = {tag: wool.routine(tags={tag})(hold.__wrapped__) for tag in ("gpu", "cpu")}
    async with wool.WorkerPool(groups=groups, idle=0.1) as pool:
        calls = [
            asyncio.ensure_future(work["cpu"](folder / f"c{n}", folder / "go")) for n in range(4)
        ]
        await until(lambda: len(list(folder.glob("c?"))) == 2)
        assert [worker.tags for worker in pool.workers] == [{"cpu"}]
        calls += [
            asyncio.ensure_future(work["gpu"](folder / f"g{n}", folder / "go")) for n in range(4)
        ]
        await until(lambda: len(list(folder.glob("g?"))) == 2)
        assert len(pool.workers) == 3
        assert len(list(folder.glob("c?"))) == 2
        (folder / "go").touch()
        ends = await asyncio.gather(*calls)
        assert (len(set(ends[:4])), len(set(ends[4:]))) == (1, 2)
        await until(lambda: len(pool.workers) == 1)


@pytest.mark.parametrize("size", [1, (0, 1)])
async def test_calls_that_routines_of_another_kind_make(size: Any) -> None:
    """The pool has a worker started for them, although it has not made them."""
    groups = [
        wool.Group(size=(0, 1), tags={"gpu"}, environment={"WOOL_TESTS_DEVICE": "3"}),
        wool.Group(size=size, tags={"cpu"}),
    ]
    async with wool.WorkerPool(groups=groups, idle=0.1) as pool:
        for _ in range(2):
            _, there, _ = await prepare()
            assert there != os.getpid()
            await until(lambda: there not in pids(pool))


@asynccontextmanager
async def failing() -> AsyncGenerator[None]:
    raise LookupError("no such model")
    yield


@pytest.mark.parametrize("size", [1, (0, 1)])
async def test_one_kind_that_cannot_start(size: Any) -> None:
    """The others serve; a call that only those could have is told why it cannot be served."""
    groups = [
        wool.Group(size=size, tags={"gpu"}, lifespan=failing),
        wool.Group(size=size, tags={"cpu"}),
    ]
    async with wool.WorkerPool(groups=groups, quorum_timeout=4) as pool:
        with pytest.raises(wool.NoWorkersAvailable, match="no such model"):
            await infer()
        assert await pid() in pids(pool)
    groups = groups[:1]
    with pytest.raises(wool.NoWorkersAvailable, match="no such model"):
        async with wool.WorkerPool(groups=groups):
            await infer()


@wool.routine
async def fill(size: int) -> int:
    kept.append(b"x" * size)
    await asyncio.sleep(3600)
    return size


kept: list[bytes] = []


async def test_a_limit_of_memory(folder: Path) -> None:
    """A worker that uses more is replaced; others go on."""
    groups = [wool.Group(memory_limit=200 << 20), wool.Group(tags={"large"})]
    large = wool.routine(tags={"large"})(fill.__wrapped__)
    async with wool.WorkerPool(groups=groups, quorum=2, memory_limit=1 << 40) as pool:
        other = asyncio.ensure_future(large(250 << 20))
        (victim,) = [worker.pid for worker in pool.workers if not worker.tags]
        with pytest.raises(wool.WorkerLost, match="used more memory than memory_limit") as caught:
            await asyncio.gather(*(fill(250 << 20) for _ in range(2)))
        assert (caught.value.pid, caught.value.outcome) == (victim, "unknown")
        await until(lambda: len(pids(pool) - {victim}) == 2)
        assert not other.done()
        other.cancel()
    with pytest.raises(wool.NoWorkersAvailable, match="used more memory than memory_limit"):
        await wool.WorkerPool(size=1, memory_limit=1 << 20).__aenter__()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"groups": GROUPS, "size": 2}, "size= along with groups=: give each group its own"),
        ({"groups": []}, "groups must be at least one wool.Group"),
        ({"groups": [{"size": 2}]}, "groups must be several wool.Group, and .* is none"),
        ({"groups": [wool.Group(size=-1)]}, "size must be a whole number"),
        ({"groups": [wool.Group(concurrency=0)]}, "concurrency must be a positive"),
        ({"memory_limit": 0}, "memory_limit must be a positive"),
        ({"groups": [wool.Group(launcher="rocket")]}, "There is no launcher 'rocket'"),
        ({"environment": {"A": 1}}, "environment must be names and values, all strings"),
        ({"environment": {"A=B": "1"}}, "environment must be names and values, all strings"),
        ({"environment": ["A"]}, "environment must be names and values, all strings"),
        (
            {"environment": {"A": "1"}, "transport": "memory"},
            "workers of the transport 'memory' are threads, and share the environment",
        ),
    ],
)
async def test_what_is_of_no_use(options: Any, told: str) -> None:
    with pytest.raises(wool.ConfigurationError, match=told):
        await wool.WorkerPool(**options).__aenter__()
