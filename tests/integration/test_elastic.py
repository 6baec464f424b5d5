"""Pools whose size varies: they grow while calls wait, and shrink when workers are idle."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, hold, mark, pid, seize
from support.pools import ASIDE_AND_WITHIN, TRANSPORTS, opened, pids
from support.processes import alive, children
from support.waiting import until

pytestmark = pytest.mark.timeout(60)


class Nice(wool.abc.Launcher):
    """Starts workers by a command of its own."""

    slots = 3

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["nice", sys.executable, *arguments]


async def begun(folder: Path, number: int) -> None:
    """Waits for so many calls to `hold` that have told where they run."""
    await until(lambda: sum(path.name.isdigit() for path in folder.iterdir()) == number)


async def shrunk(pool: wool.WorkerPool, size: int = 0) -> None:
    await until(lambda: len(pool.workers) == size, what=f"{size} workers")


@pytest.mark.parametrize(
    "options",
    [*({"transport": name} for name in TRANSPORTS), {"launcher": Nice()}],
    ids=[*TRANSPORTS, "launcher"],
)
async def test_load_that_comes_and_goes(options: Any, folder: Path) -> None:
    before = children(os.getpid())
    async with wool.WorkerPool(size=(0, 3), idle=0.2, concurrency=1, **options) as pool:
        assert pool.workers == []
        assert children(os.getpid()) == before
        for turn in "ab":
            calls = [
                asyncio.ensure_future(hold(folder / f"{turn}{n}", folder / turn)) for n in range(5)
            ]
            await until(lambda: len(pool.workers) == 3)
            (folder / turn).touch()
            assert set(await asyncio.gather(*calls)) <= pids(pool)
            await shrunk(pool)
            await until(lambda: children(os.getpid()) == before, what="their processes to end")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_no_call_is_lost_where_workers_leave(transport: str, folder: Path) -> None:
    """Workers leave at once, so calls come to them at that very moment."""
    pauses = random.Random(7)
    made: list[str] = []
    async with wool.WorkerPool(size=(0, 3), idle=0, concurrency=2, transport=transport) as pool:
        seen: set[str] = set()
        while len(seen) < 12:
            names = [f"{len(made) + n}" for n in range(8)]
            made += await asyncio.gather(*(mark(folder, name, 0.001) for name in names))
            seen |= {worker.id for worker in pool.workers}
            await asyncio.sleep(pauses.choice((0, 0, 0, 0.05, 0.1, 0.12)))
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == dict.fromkeys(made, 1)


@wool.routine
async def fan_out(folder: Path) -> list[int]:
    return await asyncio.gather(*(hold(folder / f"{n}", folder / "go") for n in range(6)))


async def test_calls_that_routines_make(folder: Path) -> None:
    """The pool sees that they wait, although it has not made them."""
    async with wool.WorkerPool(size=(1, 3), idle=0.2, concurrency=1) as pool:
        call = asyncio.ensure_future(fan_out(folder))
        await begun(folder, 3)
        assert len(pool.workers) == 3
        (folder / "go").touch()
        assert len(set(await call)) == 3
        await shrunk(pool, 1)


def busy(_: int) -> int:
    time.sleep(0.3)
    return os.getpid()


async def test_mapping_has_a_pool_grow(folder: Path) -> None:
    async with wool.WorkerPool(size=(0, 2), concurrency=16) as pool:
        paths = [folder / f"{n}" for n in range(40)]
        results = wool.map(hold, paths, [folder / "go"] * 40)
        mapping = asyncio.ensure_future(anext(results))
        await begun(folder, 32)
        (folder / "go").touch()
        assert await mapping in pids(pool)
        assert len({result async for result in results}) == 2


async def test_workers_that_answer_nobody() -> None:
    """C code that holds the interpreter's lock: the pool knows what it has sent there."""
    async with wool.WorkerPool(size=(1, 2), concurrency=1) as pool:
        calls = [asyncio.ensure_future(seize(1)) for _ in range(4)]
        await until(lambda: len(pool.workers) == 2)
        assert len(set(await asyncio.gather(*calls))) == 2


class Counter:
    def __init__(self) -> None:
        self.number = 0

    async def add(self, number: int) -> tuple[int, int]:
        self.number += number
        return self.number, os.getpid()


@wool.routine
async def numbers() -> AsyncGenerator[int]:
    while True:
        yield os.getpid()


@wool.routine
async def lend() -> Callable[[int], Any]:
    return wool.reference(Counter().add)


@wool.routine
async def keep(stack: list[Any] | None = None) -> Any:
    """Keeps an object of another worker, and uses it."""
    held.append(await lend())
    return (await held[-1](1))[1]


held: list[Any] = []


@pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)
async def test_what_lives_on_a_worker_keeps_it(transport: str, folder: Path) -> None:
    options: Any = {"size": (0, 4), "idle": 0.1, "concurrency": 1, "transport": transport}
    async with wool.WorkerPool(**options) as pool, AsyncExitStack() as stack:
        await pool.wait(4, timeout=30)
        stream = await stack.enter_async_context(aclosing(numbers()))
        first = await anext(stream)
        counter = await stack.enter_async_context(wool.remote(Counter))
        assert (await counter.add(1))[0] == 1
        function = await lend()
        assert (await function(1))[0] == 1
        ids = {worker.id for worker in pool.workers}
        await until(lambda: len(pool.workers) < 4, what="those that have nothing to leave")
        for _ in range(3):
            await asyncio.sleep(0.2)  # longer than they are kept without need
            assert {worker.id for worker in pool.workers} <= ids
            assert await anext(stream) == first
            assert (await counter.add(0))[0] == (await function(0))[0] == 1
        await stack.aclose()
        del function
        await shrunk(pool)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_worker_that_is_asked_to_leave(transport: str, folder: Path) -> None:
    """It stays if it has something by then. Calls that cross its leave are made elsewhere."""
    async with opened(1, transport=transport) as pool:
        (first,) = {worker.id for worker in pool.workers}
        async with aclosing(numbers()) as stream:
            await anext(stream)
            (link,) = pool._pool.client().links.values()
            assert link.peer is not None
            link.peer.measure(retire=True)
            usage = await until(lambda: link.peer and link.peer.usage)
            assert (usage.busy, link.draining) == (True, False)
        link.peer.measure(retire=True)
        names = [f"{n}" for n in range(5)]
        assert await asyncio.gather(*(mark(folder, name) for name in names)) == names
        assert all((folder / name).stat().st_size == 1 for name in names)
        assert link.draining
        assert first not in {worker.id for worker in pool.workers}


async def test_workers_that_are_killed_as_they_start(folder: Path) -> None:
    """Nobody has sent them calls, so none is lost."""
    async with wool.WorkerPool(size=(0, 3), idle=0.2, concurrency=1) as pool:
        before = children(os.getpid())
        calls = [asyncio.ensure_future(hold(folder / f"{n}", folder / "go")) for n in range(4)]
        for _ in range(2):  # once more, and it would be said that they cannot be started
            victim = min(await until(lambda: children(os.getpid()) - before))
            os.kill(victim, signal.SIGKILL)
            await until(lambda v=victim: not alive(v))
        await begun(folder, 3)
        (folder / "go").touch()
        assert len(set(await asyncio.gather(*calls))) == 3
        await shrunk(pool)


async def test_a_worker_that_is_killed_while_others_start(folder: Path) -> None:
    """Its calls say so, and are made once; the pool goes on to grow."""
    async with wool.WorkerPool(size=(1, 3), concurrency=1) as pool:
        calls = [asyncio.ensure_future(mark(folder, f"m{n}", 3600)) for n in range(5)]
        await until(lambda: len(children(os.getpid())) > 1)
        (victim,) = pids(pool)
        os.kill(victim, signal.SIGKILL)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {wool.WorkerLost}
        assert all(path.stat().st_size == 1 for path in folder.iterdir())
        again = [asyncio.ensure_future(hold(folder / f"{n}", folder / "go")) for n in range(3)]
        await begun(folder, 3)
        (folder / "go").touch()
        assert set(await asyncio.gather(*again)) == pids(pool)


@asynccontextmanager
async def model(path: Path) -> AsyncGenerator[None]:
    if not path.exists():
        raise LookupError("no such model")
    yield


async def test_one_that_cannot_grow(folder: Path) -> None:
    """Calls say why at once. When it is not needed any more, a later call tries anew."""
    path = folder / "model"
    async with wool.WorkerPool(size=(0, 2), idle=0.1, lifespan=lambda: model(path)) as pool:
        with pytest.raises(wool.NoWorkersAvailable, match="no such model"):
            await add(1, 2)
        with pytest.raises(wool.NoWorkersAvailable, match="no such model"):
            await pool.wait(1)
        path.touch()

        async def serves() -> bool:
            try:
                return await add(1, 2) == 3
            except wool.NoWorkersAvailable:
                return False

        await until(serves)


async def test_waiting_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_SIZE", "0, 2")
    monkeypatch.setenv("WOOL_IDLE", "0.1")
    async with wool.WorkerPool() as pool:
        await pool.wait(2, timeout=30)
        await shrunk(pool)
        waiting = asyncio.ensure_future(pool.wait(3))
        await until(lambda: len(pool.workers) == 2)
        assert not waiting.done()
        waiting.cancel()
        await shrunk(pool)
        assert await pid() in pids(pool)


async def test_leaving_before_it_has_grown(folder: Path) -> None:
    """Calls that are out get their time, although nobody has begun them."""
    async with wool.WorkerPool(size=(0, 2)):
        call = asyncio.ensure_future(add(1, 2))
        await asyncio.sleep(0)
    assert await call == 3


async def test_one_that_finds_workers_too(folder: Path) -> None:
    """Its own are added while calls wait at those that it finds, and those stay."""
    address = f"unix://{folder}/w"
    options: Any = {"size": (0, 1), "idle": 0.1, "concurrency": 1}
    async with (
        wool.Worker(address=address, concurrency=1),
        wool.WorkerPool(discovery=[address], **options) as pool,
    ):
        calls = [asyncio.ensure_future(hold(folder / f"{n}", folder / "go")) for n in range(2)]
        await begun(folder, 2)
        assert len(pool.workers) == 2
        (folder / "go").touch()
        assert os.getpid() in await asyncio.gather(*calls)
        await shrunk(pool, 1)
        assert await pid() == os.getpid()


def test_an_executor_that_grows() -> None:
    with wool.Executor(size=(0, 2)) as executor:
        assert len(set(executor.map(busy, range(8)))) == 2


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((3, 1), r"size=\(3, 1\) has the larger number first: write \(1, 3\)"),
        ((0, 0), r"size=\(0, 0\) leaves the pool without workers"),
        ((1, 2, 3), r"size=\(1, 2, 3\) must be a number, or the least and the most"),
        ("1..8", "size must be a whole number of at least 0 or a list"),
    ],
)
def test_sizes_of_no_use(size: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wool.ConfigurationError, match=told):
        wool.WorkerPool(size=size)
    with pytest.raises(wool.ConfigurationError, match="size=.1, 9. is more than the launcher has"):
        wool.WorkerPool(size=(1, 9), launcher=Nice())
    monkeypatch.setenv("WOOL_SIZE", "8,0")
    with pytest.raises(wool.ConfigurationError, match="^environment variable WOOL_SIZE: size="):
        wool.WorkerPool()
