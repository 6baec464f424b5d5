"""Processes that do not answer for a while: slow, never dead."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import wool
from support.jobs import add, block_until, count, hold, mark, nap, pid, seize, seize_until
from support.pools import CARRIERS, TRANSPORTS, arrived, opened, pids
from support.processes import alive
from support.waiting import pid_in, until

pytestmark = pytest.mark.timeout(60)


async def test_stopped_worker_is_slow_not_dead(folder: Path) -> None:
    """SIGSTOP, then SIGCONT: the call goes on, nothing is lost or replaced."""
    async with opened(concurrency=1) as pool:  # no call is moved to the one that is stopped
        before = pids(pool)
        call = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        victim = await pid_in(folder / "pid")
        os.kill(victim, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            while time.monotonic() < stopped + 2:
                async with asyncio.timeout(20):
                    assert await pid() in before - {victim}
                await asyncio.sleep(0.1)
            assert not call.done()
        finally:
            os.kill(victim, signal.SIGCONT)
        (folder / "go").touch()
        async with asyncio.timeout(20):
            assert await call == victim
        assert pids(pool) == before


async def silence(folder: Path, reached: threading.Event) -> None:
    """One worker stopped, one in C code with the interpreter lock, both for 24 s: slow, not dead.

    24 seconds are more than the keep-alive bound of 20.
    """
    async with opened(
        concurrency=1, transport=CARRIERS[0]
    ) as pool:  # no call is moved to the one that is stopped
        before = pids(pool)
        stopped = asyncio.ensure_future(hold(folder / "stopped", folder / "go"))
        victim = await pid_in(folder / "stopped")
        seized = asyncio.ensure_future(seize(24, folder / "seized"))
        assert await pid_in(folder / "seized") != victim
        os.kill(victim, signal.SIGSTOP)
        reached.set()
        try:
            waiting = [asyncio.ensure_future(add(i, 1)) for i in range(20)]
            assert await seized in before
        finally:
            os.kill(victim, signal.SIGCONT)
        (folder / "go").touch()
        async with asyncio.timeout(20):
            assert await stopped == victim
            assert await asyncio.gather(*waiting) == list(range(1, 21))
        assert pids(pool) == before


@pytest.fixture(scope="module", autouse=True)
def silent(request: pytest.FixtureRequest) -> Iterator[Future[None] | None]:
    """Begins with the silence, and goes on with it while other tests run."""
    name, reached = "test_silence_beyond_every_keep_alive", threading.Event()
    if not any(item.name.startswith(name) for item in request.session.items):
        yield None
        return
    with (
        tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as folder,
        ThreadPoolExecutor(1) as executor,
    ):
        going = executor.submit(lambda: asyncio.run(silence(Path(folder), reached)))
        going.add_done_callback(lambda _: reached.set())
        reached.wait()
        yield going


async def test_interpreter_lock_held_by_c_code(folder: Path) -> None:
    """Meanwhile the other worker serves whatever comes, one by one and in a crowd."""
    os.mkfifo(folder / "go")
    with (folder / "go").open("r+b", buffering=0) as go:
        async with opened() as pool:
            seized = asyncio.ensure_future(seize_until(folder / "pid", folder / "go"))
            victim = await pid_in(folder / "pid")
            try:
                for _ in range(20):
                    assert await pid() in pids(pool) - {victim}
                assert not seized.done(), "a call waited for the silent worker"
                crowd = [asyncio.ensure_future(add(i, 1)) for i in range(200)]
                await asyncio.wait(crowd, timeout=0.5)
            finally:
                go.write(b".")
            async with asyncio.timeout(30):
                assert await asyncio.gather(*crowd) == list(range(1, 201))
                assert await seized == victim
            assert len(pids(pool)) == 2


async def test_calls_queued_at_a_seized_worker_move(folder: Path) -> None:
    """Calls that a worker got before it fell silent are moved, or done later; none is lost."""
    async with opened() as pool:
        before = pids(pool)
        crowd = [asyncio.ensure_future(seize(1.5 if i == 20 else 0.005)) for i in range(100)]
        async with asyncio.timeout(40):
            where = await asyncio.gather(*crowd)
        assert set(where) == before
        assert pids(pool) == before


@pytest.mark.everywhere
async def test_blocked_after_calls_one_by_one(folder: Path) -> None:
    """A worker that was idle between calls reads them on the thread that then blocks.

    Calls that it had received already are given back, and run elsewhere, once.
    """
    async with opened() as pool:
        for turn in range(3):
            for i in range(20):
                assert await add(i, turn) == i + turn
            go, running = folder / f"go{turn}", folder / f"pid{turn}"
            blocked = asyncio.ensure_future(block_until(go, running))
            victim = await pid_in(running)
            crowd = [asyncio.ensure_future(mark(folder, f"{turn}-{i}")) for i in range(50)]
            async with asyncio.timeout(20):
                await asyncio.gather(*crowd)
            for _ in range(20):
                assert await pid() in pids(pool) - {victim}
            go.touch()
            assert await blocked == victim
            assert all((folder / f"{turn}-{i}").stat().st_size == 1 for i in range(50))


@pytest.mark.everywhere
async def test_cancels_after_calls_one_by_one(folder: Path) -> None:
    """Cancelling reaches what waits behind a call that blocks, what runs, and what streams."""
    async with opened(1) as pool:
        for turn in range(3):
            for i in range(20):
                assert await add(i, turn) == i + turn
            go, running = folder / f"go{turn}", folder / f"pid{turn}"
            blocked = asyncio.ensure_future(block_until(go, running))
            await pid_in(running)
            queued = asyncio.ensure_future(mark(folder, f"never{turn}"))
            await arrived(pool, 1)
            async with asyncio.timeout(20):
                queued.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await queued
            go.touch()
            await blocked
            assert not (folder / f"never{turn}").exists()
            steps = count(30)
            async with asyncio.timeout(20):
                assert [i async for i in steps] == list(range(30))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(nap(3600), 0.05)


async def test_cancel_of_the_call_that_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends when the remote side is done: not before, and as cancelled."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "600")
    async with opened(1) as pool:
        blocked = asyncio.ensure_future(block_until(folder / "go", folder / "pid"))
        victim = await pid_in(folder / "pid")
        blocked.cancel()
        _, waiting = await asyncio.wait([blocked], timeout=0.5)
        assert waiting
        (folder / "go").touch()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await blocked
            assert await pid() == victim
        assert pids(pool) == {victim}


async def test_drain_while_blocked(folder: Path) -> None:
    """SIGTERM to a blocked worker: it gives its waiting calls back at once, and ends its own."""
    async with opened(2, concurrency=1) as pool:
        first = asyncio.ensure_future(block_until(folder / "end", folder / "a"))
        victim = await pid_in(folder / "a")
        second = asyncio.ensure_future(hold(folder / "b", folder / "go"))
        await pid_in(folder / "b")
        queued = [asyncio.ensure_future(mark(folder, f"m{i}")) for i in range(20)]
        await arrived(pool, 20)
        os.kill(victim, signal.SIGTERM)
        (folder / "go").touch()
        async with asyncio.timeout(20):
            await asyncio.gather(*queued)
            await second
        (folder / "end").touch()
        assert await first == victim
        await until(lambda: not alive(victim), what="the drained worker to end")


async def test_callers_loop_blocked() -> None:
    """A caller that does not read for some seconds: its calls and streams complete all the same."""
    async with opened() as pool:
        before = pids(pool)
        calls = [asyncio.ensure_future(nap(i / 100)) for i in range(100)]
        stream = count(3)
        assert await anext(stream) == 0
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)  # lets them be sent
        time.sleep(3)
        async with asyncio.timeout(20):
            assert set(await asyncio.gather(*calls)) == before
            assert await step == 1
            assert [i async for i in stream] == [2]
        assert pids(pool) == before


async def test_callers_other_thread() -> None:
    """Another thread with its own loop calls while the loop that opened the pool is blocked."""

    async def calls() -> tuple[list[int], list[int]]:
        return await asyncio.gather(*(add(i, 1) for i in range(50))), [i async for i in count(5)]

    results: list[object] = []
    async with opened():
        run = partial(contextvars.copy_context().run, asyncio.run)
        thread = threading.Thread(target=lambda: results.append(run(calls())))
        thread.start()
        thread.join(20)  # blocks this loop on purpose
        assert not thread.is_alive(), "the other thread's calls needed this thread's loop"
        assert results == [(list(range(1, 51)), list(range(5)))]
        assert await add(1, 2) == 3


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_silence_beyond_every_keep_alive(silent: Future[None]) -> None:
    silent.result()


@wool.routine
async def blocks_below(folder: Path, depth: int) -> None:
    if depth:
        await blocks_below(folder, depth - 1)
    else:
        stand(folder)


def stand(folder: Path) -> None:
    (folder / "stands").touch()
    while not (folder / "go on").exists():
        time.sleep(0.05)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("depth", [0, 2])
async def test_a_time_limit_says_what_has_not_ended(
    depth: int, transport: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nested calls it is the innermost, with the line at which it stands."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "1")

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await blocks_below(folder, depth)

    limits: list[asyncio.Timeout] = []
    async with opened(3, transport=transport):
        call = asyncio.create_task(limited())
        await until((folder / "stands").exists)
        limits[0].reschedule(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError) as caught:
            await call
        (folder / "go on").touch()
        cause = caught.value.__cause__
        assert cause is not None
        assert any(
            re.fullmatch(r"blocks_below\(\) was cancelled .* is blocked at .*in stand", note)
            for note in cause.__notes__
        ), cause.__notes__
