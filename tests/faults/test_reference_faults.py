"""Live objects whose owner or user dies, leaves or forgets them; pipelines that lose a stage."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import kept, tell
from support.pools import opened, pids
from support.processes import alive, kill
from support.waiting import pid_in, until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """What is kept here would travel with the functions of this module."""
    kept.clear()


def note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def noted(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def source(log: Path, n: int = 1000) -> AsyncIterator[int]:
    try:
        for i in range(n):
            yield i
    finally:
        note(log, "source ends")


async def stuck(log: Path) -> AsyncIterator[int]:
    try:
        yield 0
        note(log, "stuck")
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.01)
        note(log, "source ends")


@wool.routine
async def lend(log: Path, stuck_at: int | None = None) -> Any:
    generator = source(log) if stuck_at is None else stuck(log)
    await anext(generator)
    return os.getpid(), generator


@wool.routine
async def drain(generator: Any, path: Path) -> int:
    tell(path)
    return sum([value async for value in generator])


@wool.routine
async def keep(value: Any) -> None:
    kept.append(value)


@wool.routine
async def step_kept() -> Any:
    return await anext(kept[-1])


@wool.routine
async def leave_behind(generator: Any, log: Path) -> int:
    """Leaves a task behind that goes on using what the caller has lent."""

    async def use() -> None:
        try:
            async for _ in generator:
                await asyncio.sleep(0.001)
        except BaseException as error:
            note(log, f"{type(error).__name__}: {error}")

    task = asyncio.create_task(use())
    kept.append(task)
    return os.getpid()


# The owner is a worker


@pytest.mark.usefixtures("ends_are_known")
async def test_a_worker_that_has_lent_something_is_killed_in_a_step(folder: Path) -> None:
    async with opened(1):
        owner, generator = await lend(folder / "log", 1)
        step = asyncio.ensure_future(anext(generator))
        await until(lambda: "stuck" in noted(folder / "log"))
        kill([owner])
        with pytest.raises(wool.WorkerLost, match="stuck") as caught:
            await step
        assert caught.value.outcome == "unknown"
        assert caught.value.pid == owner
        assert caught.value.signal == signal.SIGKILL
        with pytest.raises(wool.WorkerLost, match=r"where stuck\(\) lived, is gone") as caught:
            await anext(generator)
        assert (caught.value.outcome, caught.value.pid) == ("not started", owner)
        await generator.aclose()  # silent
        assert await drain(source(folder / "log", 3), folder / "pid") == 3  # the pool goes on


async def test_a_worker_that_has_lent_something_is_killed_between_steps(folder: Path) -> None:
    async with opened(2):
        owner, generator = await lend(folder / "log")
        assert await anext(generator) == 1
        kill([owner])

        async def lost() -> bool:
            try:
                await anext(generator)
            except wool.WorkerLost:
                return True
            return False

        await until(lost)
        await generator.aclose()


async def test_what_is_lent_keeps_a_worker_that_drains(folder: Path) -> None:
    async with opened(1) as pool:
        owner, generator = await lend(folder / "log")
        kill([owner], signal.SIGTERM)
        await until(lambda: pids(pool) != {owner} and pool.workers)
        assert [await anext(generator) for _ in range(3)] == [1, 2, 3]
        await generator.aclose()
        assert noted(folder / "log") == ["source ends"]
        await until(lambda: not alive(owner), what="the worker to leave")


async def test_leaving_the_pool_closes_what_its_workers_have_lent(folder: Path) -> None:
    async with opened(1):
        _, generator = await lend(folder / "log")
        _, running = await lend(folder / "log", 1)
        step = asyncio.ensure_future(anext(running))
        await until(lambda: "stuck" in noted(folder / "log"))
        step.cancel()
        await asyncio.wait([step])
    with pytest.raises(wool.WorkerStopped):
        await anext(generator)
    await generator.aclose()
    await until(lambda: noted(folder / "log").count("source ends") == 2)


async def test_the_connection_is_cut(folder: Path) -> None:
    async with opened(1) as pool:
        _, generator = await lend(folder / "log", 1)
        step = asyncio.ensure_future(anext(generator))
        await until(lambda: "stuck" in noted(folder / "log"))
        [client] = pool._pool._clients.values()
        [link] = client.links.values()
        assert link.session is not None
        await link.session.connection.aclose()
        with pytest.raises(wool.WorkerLost):
            await step
        # The owner sees it as well: the step is cancelled, and nothing is kept.
        await until(lambda: "source ends" in noted(folder / "log"))
        with pytest.raises(wool.WorkerLost):
            await anext(generator)


# The owner is the caller


async def test_the_owner_is_a_worker_that_calls_and_is_killed(folder: Path) -> None:
    @wool.routine
    async def own(log: Path) -> tuple[int, int]:
        generator = source(log, 10**9)
        kept.append(generator)
        return os.getpid(), await leave_behind(generator, log)

    for attempt in range(20):
        log = folder / f"log-{attempt}"
        async with opened(2):
            owner, user = await own(log)
            if owner == user:
                continue  # the workers of another pool choose anew
            kill([owner])
            await until(lambda: any("WorkerLost" in line for line in noted(log)))  # noqa: B023
            [line] = [line for line in noted(log) if "WorkerLost" in line]
            assert "source()" in line
            assert "is gone" in line
            return
    raise AssertionError("both ran on one worker")


# The user dies


async def test_the_user_is_killed_in_a_step(folder: Path) -> None:
    async with opened(1):
        generator = stuck(folder / "log")
        call = asyncio.ensure_future(drain(generator, folder / "pid"))
        await until(lambda: "stuck" in noted(folder / "log"))
        kill([await pid_in(folder / "pid")])
        with pytest.raises(wool.WorkerLost):
            await call
        await until(lambda: noted(folder / "log") == ["stuck", "source ends"])
        assert [value async for value in generator] == []


async def test_the_user_is_killed_between_steps(folder: Path) -> None:
    async with opened(1) as pool:
        generator = source(folder / "log")
        await keep(generator)
        assert await step_kept() == 0
        kill(pids(pool))
        await until(lambda: _references() == 0, what="the object to be given up")
        assert await anext(generator) == 1  # it is still its owner's
        await generator.aclose()


def _references() -> int:
    from wool._values.references import EXPORTS

    gc.collect()
    return len(EXPORTS._by_key)


# Nothing grows


@wool.routine
async def look(*objects: Any) -> None:
    for value in objects[:1]:
        await anext(value, None)


@wool.routine
async def burden() -> tuple[int, int, int, int]:
    from wool._values.references import EXPORTS

    gc.collect()
    await asyncio.sleep(0)
    objects = sum(str(type(each).__module__).startswith("wool.") for each in gc.get_objects())
    return os.getpid(), len(EXPORTS._by_key), len(asyncio.all_tasks()), objects


@pytest.mark.slow
async def test_ten_thousand_references() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async with opened(1):
        await look(numbers())
        _, there, tasks_there, objects_there = await burden()
        tasks = len(asyncio.all_tasks())
        for _ in range(100):
            await asyncio.gather(*(look(*(numbers() for _ in range(10))) for _ in range(10)))
        await until(lambda: _references() == 0, what="all to be given up")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, what="drivers to end")
        await until(lambda: restored(there, tasks_there, objects_there), what="the worker's")


async def restored(exports: int, tasks: int, objects: int) -> bool:
    """Whether the worker has no more of all that than it had."""
    _, exports_now, tasks_now, objects_now = await burden()
    return exports_now <= exports and tasks_now <= tasks and objects_now < objects + 200


# Pipelines past the dead


@wool.routine
async def stage(name: str, source: Any, folder: Path) -> AsyncIterator[int]:
    tell(folder / name)
    try:
        async for value in source:
            yield value + 1
    finally:
        note(folder / "log", f"{name} ends")


@wool.routine
async def endless(folder: Path) -> AsyncIterator[int]:
    tell(folder / "one")
    try:
        i = 0
        while True:
            yield i
            i += 1
    finally:
        note(folder / "log", "one ends")


@pytest.mark.parametrize("victim", ["one", "three", "five"])
async def test_a_stage_of_a_pipeline_is_killed(folder: Path, victim: str) -> None:
    async with opened(3) as pool:
        pipeline: Any = endless(folder)
        for name in ("two", "three", "four", "five"):
            pipeline = stage(name, pipeline, folder)
        values = [await anext(pipeline) for _ in range(5)]
        assert values == [4, 5, 6, 7, 8]
        where = {name: await pid_in(folder / name) for name in ("one", "two", "three", "four")}
        where["five"] = await pid_in(folder / "five")
        kill([where[victim]])
        with pytest.raises(wool.WorkerLost) as caught:
            while True:
                await anext(pipeline)
        assert caught.value.outcome == "unknown"
        # Every stage that did not die with its worker ends properly.
        ends = {f"{name} ends" for name, pid in where.items() if pid != where[victim]}
        await until(
            lambda: set(noted(folder / "log")) >= ends,
            what=f"{ends} of {where}, {noted(folder / 'log')}",
        )
        await pool.wait(3, timeout=30)
        again = stage("six", endless(folder), folder)
        assert [await anext(again) for _ in range(3)] == [1, 2, 3]
        await again.aclose()
