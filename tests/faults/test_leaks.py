"""Nothing accumulates: tasks, file descriptors, threads, memory, files."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
from pathlib import Path

import pytest

import wool
from support.jobs import add, nap
from support.pools import CARRIERS, TRANSPORTS, opened, pids
from support.processes import Script, shared_memory
from support.waiting import until

pytestmark = pytest.mark.timeout(120)


@wool.routine
async def linger() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)


@wool.routine
async def linger_in_steps():
    try:
        while True:
            yield 1
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)


@wool.routine
async def burden(seconds: float) -> tuple[int, int, int]:
    """Process, tasks and file descriptors of a worker."""
    await asyncio.sleep(seconds)
    gc.collect()
    return os.getpid(), len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


async def burdens(pool: wool.WorkerPool) -> dict[int, tuple[int, int]]:
    """The least that is seen on each worker: the calls that ask see each other."""
    found: dict[int, tuple[int, int]] = {}
    rounds = 0
    while rounds < 3 or not found.keys() >= pids(pool):
        rounds += 1
        for pid, tasks, files in await asyncio.gather(*(burden(0.05) for _ in range(6))):
            least = found.get(pid, (tasks, files))
            found[pid] = (min(least[0], tasks), min(least[1], files))
    assert set(found) == pids(pool)
    return found


async def pause(dice: random.Random) -> None:
    """Nothing, one turn, some turns, or some milliseconds."""
    kind = dice.randrange(4)
    if kind == 1:
        await asyncio.sleep(0)
    elif kind == 2:
        for _ in range(dice.randrange(2, 20)):
            await asyncio.sleep(0)
    elif kind == 3:
        await asyncio.sleep(dice.random() * 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "concurrency"), [*((name, None) for name in TRANSPORTS), (CARRIERS[0], 1)]
)
async def test_thousands_of_cancelled_calls(concurrency: int | None, transport: str) -> None:
    """Cancelled at every stage of their life: no task is leaked here or there."""
    dice = random.Random(11)
    async with opened(2, concurrency=concurrency, transport=transport) as pool:
        await asyncio.gather(*(nap(0.05) for _ in range(8)))
        if transport != "memory":
            before_there = await burdens(pool)
        before = len(asyncio.all_tasks())
        for _ in range(25):
            calls = [asyncio.ensure_future(linger()) for _ in range(200)]
            await pause(dice)
            for call in calls:
                call.cancel()
                if dice.random() < 0.1:
                    call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
        del calls
        assert await add(1, 2) == 3
        await until(lambda: len(asyncio.all_tasks()) <= before, what="tasks of the caller to end")
        if transport != "memory":

            async def restored() -> bool:
                now = await burdens(pool)
                return all(
                    now[pid][0] <= tasks and now[pid][1] <= files
                    for pid, (tasks, files) in before_there.items()
                )

            await until(restored, what="tasks and descriptors of the workers to go")


async def test_a_thousand_abandoned_streams() -> None:
    """Broken off, garbage collected or cancelled in a step: all are closed on the workers."""
    async with opened() as pool:
        await asyncio.gather(*(nap(0.05) for _ in range(8)))
        before_there = await burdens(pool)
        before = len(asyncio.all_tasks())
        for turn in range(10):
            streams = [linger_in_steps() for _ in range(100)]
            await asyncio.gather(*(anext(stream) for stream in streams))
            if turn % 3 == 0:
                await asyncio.gather(*(stream.aclose() for stream in streams))
            elif turn % 3 == 1:
                steps = [asyncio.ensure_future(anext(stream)) for stream in streams]
                await asyncio.sleep(0)
                for step in steps:
                    step.cancel()
                await asyncio.gather(*steps, return_exceptions=True)
                del steps
            del streams
            gc.collect()
        await until(lambda: len(asyncio.all_tasks()) <= before, what="tasks here to end")

        async def restored() -> bool:
            now = await burdens(pool)
            return all(now[pid][0] <= tasks for pid, (tasks, _) in before_there.items())

        await until(restored, what="tasks of the workers to go")


async def test_failed_starts_leave_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that could not be opened leaves no process, descriptor or file."""
    temp = folder / "t"
    temp.mkdir()
    shm = shared_memory()
    (folder / "sitecustomize.py").write_text("import os; os._exit(13)")
    async with wool.WorkerPool(size=1):  # whatever is made once in a process
        await add(1, 2)
    files = len(os.listdir("/proc/self/fd"))
    monkeypatch.setenv("TMPDIR", str(temp))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(temp))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(wool.WoolError):
        async with wool.WorkerPool(size=1):
            pass
    assert list(temp.iterdir()) == []
    assert not shared_memory() - shm
    gc.collect()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= files, what="descriptors to go")


MANY_POOLS = """
import asyncio, gc, json, os, sys, threading, time
import wool

transport, rounds = sys.argv[1], int(sys.argv[2])

@wool.routine
async def add(x, y):
    return x + y

def measure():
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "python threads": threading.active_count(),
        "memory": resident,
        "temporary": len(os.listdir(os.environ["TMPDIR"])),
    }

async def one(i):
    async with wool.WorkerPool(size=1, transport=transport):
        assert await add(i, 1) == i + 1

async def two(i):
    await asyncio.gather(one(i), one(i + 1))
    return measure()

async def main():
    found = [await two(i) for i in range(0, rounds, 2)]
    end = time.monotonic() + 40  # gRPC closes its sockets in threads of its own, which idle first
    while time.monotonic() < end:
        if all(found[-1][name] <= found[9][name] for name in found[9] if name != "memory"):
            break
        await asyncio.sleep(0.01)
        found[-1] = measure()
    return found

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("transport", "rounds"),
    [(name, 30 if name in CARRIERS else 60) for name in TRANSPORTS],  # processes take their time
)
def test_many_pools(transport: str, rounds: int, folder: Path) -> None:
    """Many pools in one process, two at a time: nothing grows after the first 20."""
    with Script(MANY_POOLS, folder, transport, str(rounds)) as script:
        found = json.loads(script.output(170))
        assert script.survivors() == set()
        assert script.leftovers() == []
        assert script.stderr == ""
    early, late = found[9], found[-1]
    for name in ("files", "threads", "python threads", "temporary"):
        assert late[name] <= early[name], f"{name}: {early[name]} → {late[name]}"
    growth = late["memory"] - early["memory"]
    assert growth < rounds * (128 << 10), f"memory grew by {growth >> 20} MiB"


GROWTH = """
import asyncio, gc, os, sys
import wool

@wool.routine
async def echo(x):
    return x

@wool.routine
async def fail():
    raise ValueError("on purpose")

@wool.routine
async def steps(n):
    for i in range(n):
        yield i

@wool.routine
async def resident():
    return measure()

def measure():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def work():
    for _ in range(20):
        await asyncio.gather(*(echo(i) for i in range(200)))
        await asyncio.gather(*(fail() for i in range(50)), return_exceptions=True)
        for _ in range(5):
            assert [i async for i in steps(5)] == list(range(5))
        assert len(await echo(bytes(4 << 20))) == 4 << 20

async def main():
    async with wool.WorkerPool(size=1):
        await work()
        await work()
        before = measure(), await resident()
        for _ in range(5):
            await work()
        after = measure(), await resident()
        print(after[0] - before[0], after[1] - before[1])

asyncio.run(main())
"""


@pytest.mark.slow
def test_memory_of_a_long_run(folder: Path) -> None:
    """Calls, failures, streams and large values leave neither the caller nor a worker fatter."""
    with Script(GROWTH, folder) as script:
        here, there = (int(word) for word in script.output(100).split())
    assert here < 20 << 20, f"the caller grew by {here >> 20} MiB"
    assert there < 20 << 20, f"the worker grew by {there >> 20} MiB"
