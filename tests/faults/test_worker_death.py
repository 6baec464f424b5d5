"""Workers that die: the caller learns it at once, and the pool replaces them."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import wool
from support.jobs import add, block, count, mark, pid, stay, tell
from support.pools import all_serve, arrived, opened, pids
from support.processes import alive, kill
from support.waiting import pid_in, until
from wool._worker.process import WorkerProcess, _watch

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("ends_are_known")]

PROMPTLY = 8.0
"""Seconds that are too few for whoever waits for a keep-alive, or until a grace is over."""


async def lost(call: asyncio.Future[object]) -> wool.WorkerLost:
    """Waits for a call that must end in `WorkerLost`, soon."""
    async with asyncio.timeout(PROMPTLY):
        with pytest.raises(wool.WorkerLost) as caught:
            await call
    return caught.value


@wool.routine
async def leave(status: int) -> None:
    os._exit(status)


@wool.routine
async def wait_and_tell(began: Path, ended: Path) -> None:
    tell(began)
    try:
        await asyncio.sleep(3600)
    finally:
        tell(ended)


@wool.routine
async def wait_on_both(folder: Path) -> None:
    tell(folder / "outer")
    await asyncio.gather(*(wait_and_tell(folder / f"{i}", folder / f"{i} ended") for i in "ab"))


@wool.routine
async def leave_once(n: int, folder: Path) -> int:
    """Ends its worker with the second number, once the first has arrived."""
    if n == 1:
        await pid_in(folder / "arrived")
        os._exit(1)
    return n


@wool.routine
async def fork_and_stay(path: Path, child_path: Path) -> None:
    """Leaves a forked child behind that has a copy of every descriptor of the worker."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    child_path.write_text(str(child))
    path.write_text(str(os.getpid()))
    await asyncio.sleep(3600)


@wool.routine
async def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@wool.routine
async def slow_count(path: Path):
    path.write_text(str(os.getpid()))
    yield 0
    path.with_suffix(".steps").touch()
    await asyncio.sleep(3600)
    yield 1


@wool.routine
async def deaf(path: Path) -> None:
    path.write_text(str(os.getpid()))
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            path.with_suffix(".cancelled").touch()


@pytest.mark.everywhere
async def test_killed_in_the_middle_of_a_call(folder: Path) -> None:
    """A killed process: `WorkerLost` promptly, with outcome, signal, host and pid."""
    async with opened():
        call = asyncio.ensure_future(stay(folder / "pid"))
        victim = await pid_in(folder / "pid")
        os.kill(victim, signal.SIGKILL)
        error = await lost(call)
        assert error.outcome == "unknown"
        assert error.signal == signal.SIGKILL
        assert error.pid == victim
        assert error.host == socket.gethostname()
        assert "SIGKILL" in str(error) or "signal 9" in str(error)
        assert str(victim) in str(error)
        assert "during stay()" in str(error)


@pytest.mark.everywhere
async def test_calls_that_a_killed_worker_has_made_are_cancelled(folder: Path) -> None:
    async with opened():
        call = asyncio.ensure_future(wait_on_both(folder))
        victim = await pid_in(folder / "outer")
        ran = {await pid_in(folder / name): name for name in "ab"}
        assert len(ran) == 2
        kill([victim])
        await lost(call)
        del ran[victim]
        for name in ran.values():
            await pid_in(folder / f"{name} ended")


async def test_killed_worker_is_replaced(folder: Path) -> None:
    """The pool keeps its size: a crashed worker is replaced and the new one serves."""
    async with opened() as pool:
        before = pids(pool)
        call = asyncio.ensure_future(stay(folder / "pid"))
        victim = await pid_in(folder / "pid")
        os.kill(victim, signal.SIGKILL)
        await lost(call)
        await until(lambda: victim not in pids(pool), what="the dead worker to be forgotten")
        await pool.wait(2, timeout=30)
        after = pids(pool)
        assert len(after) == 2 and len(after & before) == 1
        await all_serve(pool)
        assert pids(pool) == after


@pytest.mark.parametrize("status", [0, 7])
async def test_exit_status_is_told(status: int) -> None:
    """`os._exit` in a routine: `WorkerLost` with the exit code, whatever it is."""
    async with opened() as pool:
        error = await lost(asyncio.ensure_future(leave(status)))
        assert error.exitcode == status
        assert error.signal is None
        assert error.outcome == "unknown"
        assert f"{status}" in str(error)
        await pool.wait(2, timeout=30)
        assert await add(1, 2) == 3


async def test_death_is_noticed_though_a_forked_child_lives(folder: Path) -> None:
    """Promptly also when a child of the worker still holds its sockets and pipes open."""
    async with opened():
        call = asyncio.ensure_future(fork_and_stay(folder / "pid", folder / "child"))
        victim = await pid_in(folder / "pid")
        child = int((folder / "child").read_text())
        try:
            os.kill(victim, signal.SIGKILL)
            error = await lost(call)
            assert error.signal == signal.SIGKILL
            assert await add(1, 2) == 3
        finally:
            kill([child])


async def test_stream_on_a_killed_worker(folder: Path) -> None:
    """A step that waits ends in `WorkerLost`; afterwards the generator is finished."""
    async with opened():
        stream = slow_count(folder / "pid")
        assert await anext(stream) == 0
        step = asyncio.ensure_future(anext(stream))
        await until((folder / "pid.steps").exists)
        os.kill(await pid_in(folder / "pid"), signal.SIGKILL)
        assert (await lost(step)).outcome == "unknown"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()


async def test_idle_stream_on_a_killed_worker(folder: Path) -> None:
    """A stream between two steps: its next step ends in `WorkerLost`, closing it is silent."""
    async with opened(1) as pool:
        stepped, closed = slow_count(folder / "a"), slow_count(folder / "b")
        assert [await anext(stepped), await anext(closed)] == [0, 0]
        victim = await pid_in(folder / "a")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not alive(victim), what="the worker to die")
        await lost(asyncio.ensure_future(anext(stepped)))
        async with asyncio.timeout(PROMPTLY):
            await closed.aclose()
        await pool.wait(1, timeout=30)
        assert [i async for i in count(3)] == [0, 1, 2]


async def test_calls_queued_behind_a_killed_worker(folder: Path) -> None:
    """At most once: what was queued ends in a value, once run, or in `WorkerLost`, soon."""
    async with opened(1) as pool:
        blocked = asyncio.ensure_future(block(3600, folder / "pid"))
        victim = await pid_in(folder / "pid")
        queued = [asyncio.ensure_future(mark(folder, f"m{i}")) for i in range(50)]
        await arrived(pool, 50)
        assert not any(call.done() for call in queued)
        os.kill(victim, signal.SIGKILL)
        assert (await lost(blocked)).outcome == "unknown"
        async with asyncio.timeout(30):
            results = await asyncio.gather(*queued, return_exceptions=True)
        for i, result in enumerate(results):
            path = folder / f"m{i}"
            runs = path.stat().st_size if path.exists() else 0
            if isinstance(result, wool.WorkerLost):
                assert runs == 0, "the worker was blocked and cannot have begun it"
            else:
                assert result == f"m{i}" and runs == 1
        await pool.wait(1, timeout=30)
        assert await mark(folder, "after") == "after"


async def test_chunk_on_a_killed_worker(folder: Path) -> None:
    async with wool.WorkerPool(size=1):
        mapped = wool.map(leave_once, range(3), [folder] * 3, chunksize=3, return_exceptions=True)
        assert await anext(mapped) == 0
        tell(folder / "arrived")
        assert [type(value) async for value in mapped] == [wool.WorkerLost] * 2


async def test_every_worker_killed_at_once(folder: Path) -> None:
    """All calls end promptly, and the pool recovers by itself; the next call just waits for it."""
    async with opened() as pool:
        before, reached, calls = pids(pool), set[int](), list[asyncio.Future[None]]()
        while reached != before or len(calls) < 10:
            path = folder / f"pid{len(calls)}"
            calls.append(asyncio.ensure_future(stay(path)))
            reached.add(await pid_in(path))
        kill(before)
        for call in calls:
            assert (await lost(call)).outcome == "unknown"
        async with asyncio.timeout(30):
            assert await add(1, 2) == 3
        await pool.wait(2, timeout=30)
        assert not pids(pool) & before


async def test_cancelled_call_on_a_killed_worker(folder: Path) -> None:
    """A cancel that waits for the remote clean-up does not wait for a dead worker."""
    async with opened():
        call = asyncio.ensure_future(deaf(folder / "pid"))
        victim = await pid_in(folder / "pid")
        call.cancel()
        await until((folder / "pid.cancelled").exists)
        assert not call.done()
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(PROMPTLY):
            with pytest.raises((asyncio.CancelledError, wool.WorkerLost)):
                await call
        assert await add(1, 2) == 3


async def test_worker_that_dies_while_it_imports(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module whose import kills the worker: each call ends in an error that names the status."""
    (folder / "deadly.py").write_text(
        "import os, wool\n"
        "if os.getpid() != int(os.environ['SAFE_PID']):\n"
        "    os._exit(13)\n"
        "@wool.routine\n"
        "async def never():\n"
        "    return 1\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("SAFE_PID", str(os.getpid()))
    import deadly  # type: ignore[import-not-found]

    try:
        async with opened() as pool:
            async with asyncio.timeout(PROMPTLY):
                with pytest.raises(wool.WorkerLost) as caught:
                    await deadly.never()
            assert caught.value.exitcode == 13
            assert re.search(r"worker \d+ .*\b13\b", str(caught.value))
            for _ in range(4):
                async with asyncio.timeout(20):
                    with pytest.raises(wool.WoolError, match="13"):
                        await deadly.never()
            async with asyncio.timeout(20):
                await pool.wait(1, timeout=20)
                assert await add(1, 2) == 3
    finally:
        del sys.modules["deadly"]


DEATHS = {
    "exit": ("import os; os._exit(13)", r"\b13\b"),
    "segfault": ("import ctypes; ctypes.string_at(0)", r"SIGSEGV|\b11\b"),
}


def poison(folder: Path, death: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every interpreter that is started from now on die at once."""
    (folder / "sitecustomize.py").write_text(death)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("death", DEATHS)
async def test_crash_loop_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """No worker ever starts: opening the pool fails and says why, well before its time-out."""
    code, told = DEATHS[death]
    poison(folder, code, monkeypatch)
    async with asyncio.timeout(30):
        with pytest.raises(wool.WoolError, match=told):
            async with wool.WorkerPool(size=2):
                pytest.fail("the pool opened without a worker")
    monkeypatch.undo()
    async with wool.WorkerPool(size=1):
        assert await add(1, 2) == 3


async def test_workers_that_cannot_be_started_for_a_reason_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever goes wrong, whoever opens a pool learns of it, and does not wait."""

    def refuse(process: WorkerProcess, config: object) -> None:
        raise ValueError("unmarshallable object")

    monkeypatch.setattr(WorkerProcess, "configure", refuse)
    async with asyncio.timeout(30):
        with pytest.raises(wool.NoWorkersAvailable, match="unmarshallable object") as raised:
            async with wool.WorkerPool(size=2):
                pytest.fail("the pool opened without a worker")
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_crash_loop_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No replacement can be started: calls end in an error that says why, and do not hang."""
    async with opened() as pool:
        poison(folder, "import os; os._exit(13)", monkeypatch)
        kill(pids(pool))
        await until(lambda: not pool.workers, what="the deaths to be noticed")
        async with asyncio.timeout(30):
            with pytest.raises(wool.WoolError, match=r"\b13\b"):
                await add(1, 2)


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_random_kills(folder: Path) -> None:
    """While calls are made: each runs at most once and ends in a value or `WorkerLost`."""
    dice = random.Random(8)
    outcomes: dict[str, object] = {}
    killed: set[int] = set()
    over = asyncio.Event()

    async def call_on(lane: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            name = f"m{lane}-{number}"
            try:
                outcomes[name] = await mark(folder, name, dice.random() * 0.02)
            except Exception as error:
                outcomes[name] = error
                await asyncio.sleep(0.01)

    async with opened() as pool:
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            for lane in range(8):
                group.create_task(call_on(lane))
            for _ in range(7):
                enough = len(outcomes) + dice.randrange(50, 100)
                await until(lambda: len(outcomes) >= enough and pool.workers)
                victim = dice.choice(pool.workers).pid
                killed.add(victim)
                kill([victim])
            over.set()
        await until(
            lambda: len(pids(pool)) == 2 and not pids(pool) & killed,
            what="the last replacements",
        )
        assert await pid() in pids(pool)

    values = losses = 0
    for name, outcome in outcomes.items():
        path = folder / name
        runs = path.stat().st_size if path.exists() else 0
        assert runs <= 1, f"{name} ran {runs} times"
        if isinstance(outcome, wool.WorkerLost):
            losses += 1
            assert outcome.outcome == "unknown" or runs == 0, f"{name} ran: {outcome!r}"
        else:
            values += 1
            assert outcome == name and runs == 1, f"{name}: {outcome!r}, ran {runs} times"
    assert values > 100
    assert losses > 0


async def test_where_there_are_no_process_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: a thread waits for the process, and the loop of the pool is told."""
    monkeypatch.delattr(os, "pidfd_open")
    threads: list[int] = []
    told = asyncio.Event()

    def on_exit() -> None:
        threads.append(threading.get_ident())
        told.set()

    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        _watch(child, on_exit)
        async with asyncio.timeout(30):
            await told.wait()
    assert threads == [threading.get_ident()]
    async with wool.WorkerPool(size=1) as pool:
        worker = pool.workers[0]
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: pool.workers and pool.workers[0].pid != worker.pid)
        assert await add(1, 2) == 3


async def test_interrupted_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal's Ctrl-C reaches workers as well, however young they are."""
    started: set[int] = set()
    start = WorkerProcess.__init__

    def start_and_interrupt(self: WorkerProcess, *how: object) -> None:
        start(self, *how)
        started.add(self.pid)
        os.kill(self.pid, signal.SIGINT)

    monkeypatch.setattr(WorkerProcess, "__init__", start_and_interrupt)
    async with opened(2) as pool:
        await pool.wait(2)
        assert await pid() in started == pids(pool)
    assert capfd.readouterr() == ("", "")


@pytest.mark.everywhere
async def test_calls_made_while_the_end_of_a_session_is_not_known_yet() -> None:
    """They have not begun: each is given to another worker, or to the same one later."""
    async with opened(size=1) as pool:
        await add(0, 0)
        (link,) = pool._pool.client().links.values()
        assert link.session is not None
        link.session._lost = True  # as its writer learns it, some turns of the loop before the link
        calls = [asyncio.ensure_future(add(number, 1)) for number in range(5)]
        await asyncio.sleep(0)
        await link.session.connection.aclose()
        async with asyncio.timeout(20):
            assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5]
