"""Workers that are asked to leave, and pools that are."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import wool
from support.jobs import count, hold, mark, pid
from support.pools import arrived, opened, pids
from support.processes import alive, kill
from support.waiting import pid_in, until

pytestmark = pytest.mark.timeout(60)


async def test_sigterm_drains(folder: Path) -> None:
    """Running calls finish, waiting ones are moved, the worker leaves and is replaced."""
    async with opened(2, concurrency=1) as pool:
        before = pids(pool)
        first = asyncio.ensure_future(hold(folder / "a", folder / "go"))
        second = asyncio.ensure_future(hold(folder / "b", folder / "go"))
        victim = await pid_in(folder / "a")
        assert await pid_in(folder / "b") != victim
        queued = [asyncio.ensure_future(mark(folder, f"m{i}")) for i in range(20)]
        await arrived(pool, 20)
        os.kill(victim, signal.SIGTERM)
        async with asyncio.timeout(25):
            # Both old workers are busy: only a replacement can run these.
            assert await asyncio.gather(*queued) == [f"m{i}" for i in range(20)]
        assert not first.done() and not second.done()
        assert victim not in pids(pool)
        assert pids(pool) - before
        (folder / "go").touch()
        async with asyncio.timeout(25):
            assert await first == victim
            assert await second != victim
        await until(lambda: not alive(victim), what="the drained worker to end")
        await pool.wait(2, timeout=25)
        assert all((folder / f"m{i}").stat().st_size == 1 for i in range(20))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
async def test_what_terminals_send_is_the_business_of_the_caller(
    number: signal.Signals, folder: Path
) -> None:
    """Ctrl-C and the end of a terminal reach all; the caller may want to end in good order."""
    async with opened(1) as pool:
        call = asyncio.ensure_future(hold(folder / "a", folder / "go"))
        victim = await pid_in(folder / "a")
        os.kill(victim, number)
        (folder / "go").touch()
        async with asyncio.timeout(25):
            assert await call == victim
        assert pids(pool) == {victim}


async def test_sigterm_to_every_worker(folder: Path) -> None:
    """A rolling restart under load: every call ends in its value."""
    async with opened(2) as pool:
        running = True
        served = 0

        async def load(lane: int) -> None:
            nonlocal served
            number = 0
            while running:
                number += 1
                name = f"m{lane}-{number}"
                assert await mark(folder, name, 0.002) == name
                assert (folder / name).stat().st_size == 1
                served += 1

        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            for lane in range(8):
                group.create_task(load(lane))
            for _ in range(2):
                for victim in pids(pool):
                    os.kill(victim, signal.SIGTERM)
                    await until(
                        lambda v=victim: not alive(v) and v not in pids(pool),
                        what="the worker to end",
                    )
                    await pool.wait(2, timeout=25)
            running = False
        assert served > 100


async def test_sigterm_with_an_open_stream() -> None:
    """A stream that is open is a running call: it goes on to its end."""
    async with opened(1) as pool:
        (victim,) = pids(pool)
        stream = count(5)
        assert await anext(stream) == 0
        os.kill(victim, signal.SIGTERM)
        await until(lambda: pids(pool) - {victim}, what="the replacement")
        async with asyncio.timeout(25):
            assert [i async for i in stream] == [1, 2, 3, 4]
        await until(lambda: not alive(victim), what="the worker to end")


@wool.routine
async def begin(path: Path, release: Path) -> tuple[int, int]:
    here = os.getpid()
    path.write_text(str(here))
    while not release.exists():
        await asyncio.sleep(0.01)
    return here, await pid()


@pytest.mark.parametrize("size", [1, 2])
async def test_sigterm_before_a_nested_call(folder: Path, size: int) -> None:
    """A running call that calls others still finishes: its worker gets to know the new ones."""
    async with opened(size) as pool:
        old = pids(pool)
        calls = [
            asyncio.ensure_future(begin(folder / f"{n}", folder / "go")) for n in range(2 * size)
        ]
        for n in range(2 * size):
            await pid_in(folder / f"{n}")
        for victim in old:
            os.kill(victim, signal.SIGTERM)
        (folder / "go").touch()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*calls)
        assert {here for here, _ in outcomes} == old
        for victim in old:
            await until(lambda v=victim: not alive(v), what="the drained worker to end")


async def test_sigkill_while_draining(folder: Path) -> None:
    """A worker that dies while it drains is a worker that died."""
    async with opened(2) as pool:
        call = asyncio.ensure_future(hold(folder / "a", folder / "go"))
        victim = await pid_in(folder / "a")
        os.kill(victim, signal.SIGTERM)
        await until(lambda: victim not in pids(pool), what="the drain to be noticed")
        kill([victim])
        async with asyncio.timeout(20):
            with pytest.raises(wool.WorkerLost) as caught:
                await call
        assert caught.value.signal == signal.SIGKILL
