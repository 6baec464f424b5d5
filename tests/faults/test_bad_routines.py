"""Routines that misbehave: no call can hurt another.

Where `transport` is a parameter the test runs on worker processes and inside of this one.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import pytest

import wool
from support import jobs
from support.jobs import add, block, count, fib, seize, stay, tell
from support.pools import ASIDE_AND_WITHIN, opened, pids, unharmed
from support.processes import alive, kill
from support.waiting import pid_in, until

pytestmark = pytest.mark.timeout(60)

both = pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)


@wool.routine
async def leave(status: object) -> None:
    sys.exit(status)  # type: ignore[arg-type]


@wool.routine
async def interrupt() -> None:
    await asyncio.sleep(0)
    raise KeyboardInterrupt("on purpose")


@wool.routine
async def deaf(path: Path) -> None:
    """Swallows every cancellation."""
    path.write_text(str(os.getpid()))
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@wool.routine
async def deaf_for_a_while(folder: Path) -> AsyncGenerator[int, None]:
    """Swallows every cancellation until there is the file `go`."""
    tell(folder / "pid")
    while not (folder / "go").exists():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
    try:
        yield 1
    finally:
        tell(folder / "closed")


@wool.routine
async def swallow_once(path: Path) -> str:
    path.write_text(str(os.getpid()))
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
    return "swallowed"


@wool.routine
async def leak_tasks(n: int) -> int:
    jobs.kept.extend(asyncio.create_task(asyncio.sleep(3600)) for _ in range(n))
    return n


@wool.routine
async def leak_generators(n: int) -> int:
    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)

    for _ in range(n):
        await anext(numbers())
    gc.collect()
    return n


@wool.routine
async def leak_failure(kind: str) -> str:
    """Something left on the loop fails after the call has returned."""
    error: BaseException = {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "ValueError": ValueError("on purpose"),
        "CancelledError": asyncio.CancelledError(),
    }[kind]

    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise error

    def fail_now() -> None:
        raise error

    async def reap(task: asyncio.Task[None]) -> None:
        # Takes the exception, so that only what is on purpose is reported.
        with suppress(BaseException):
            await task

    task = asyncio.create_task(fail())
    jobs.kept.append(task)
    jobs.kept.append(asyncio.create_task(reap(task)))
    if kind != "ValueError":
        asyncio.get_running_loop().call_later(0.05, fail_now)
    return "returned"


@wool.routine
async def outlast_leaked_failure() -> None:
    """Ends when that has happened."""
    await asyncio.wait([jobs.kept[-1]])  # type: ignore[type-var]


@wool.routine
async def stop_the_loop(after: float) -> str:
    loop = asyncio.get_running_loop()
    if after:
        loop.call_later(after, loop.stop)
    else:
        loop.stop()
    await asyncio.sleep(0.1)
    return "survived"


@wool.routine
async def close_the_loop() -> None:
    asyncio.get_running_loop().close()


@wool.routine
async def cancel_everything() -> int:
    """As a careless shutdown handler does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len(others)


@wool.routine
async def ignore_signals() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    return os.getpid()


@wool.routine
async def close_standard_streams() -> None:
    sys.stdin.close()
    sys.stdout.close()
    sys.stderr.close()
    for fd in (0, 1, 2):
        with suppress(OSError):
            os.close(fd)


@wool.routine
async def exhaust_descriptors() -> int:
    """Opens files until the limit is reached, holds them for a moment, and closes them."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    opened_here = []
    try:
        with suppress(OSError):
            while True:
                opened_here.append(os.open("/dev/null", os.O_RDONLY))
        await asyncio.sleep(0.5)
        return len(opened_here)
    finally:
        for fd in opened_here:
            os.close(fd)


@wool.routine
async def leave_a_thread(seconds: float) -> None:
    threading.Thread(target=time.sleep, args=(seconds,)).start()


@wool.routine
async def fork(way: str) -> int:
    """The child comes back from its routine; returns how it has ended."""
    child = os.fork()
    if child == 0:
        if way == "exit":
            sys.exit(3)
        if way == "raise":
            raise KeyError("on purpose")
        await asyncio.sleep(0)
        return -1
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)


@wool.routine
async def finish(path: Path, release: float) -> None:
    path.write_text(str(os.getpid()))
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(release)
        path.with_suffix(".finally").touch()


@both
async def test_sys_exit_and_keyboard_interrupt(transport: str, folder: Path) -> None:
    """They reach the caller with what they say, and never hurt the worker."""
    async with unharmed(folder, transport):
        for status in [None, 0, 3, "a message"] * 2:
            with pytest.raises(SystemExit) as caught:
                await leave(status)
            assert caught.value.code == status
            with pytest.raises(KeyboardInterrupt) as interrupted:
                await interrupt()
            assert interrupted.value.args == ("on purpose",)


@pytest.mark.slow
async def test_cancellation_swallowed_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace period bounds the wait for a deaf routine; others are served meanwhile."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "1")
    async with asyncio.timeout(40), opened(1, shutdown_timeout=1):
        call = asyncio.ensure_future(deaf(folder / "deaf"))
        await pid_in(folder / "deaf")
        cancelled = time.monotonic()
        call.cancel()
        for _ in range(5):
            assert await add(1, 2) == 3
        is_early = time.monotonic() < cancelled + 0.9
        assert not (call.done() and is_early), (
            "it ends when the remote side has, or after the grace"
        )
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await add(1, 2) == 3
        kill([await pid_in(folder / "deaf")])  # spares the end of the pool the same wait


async def test_value_that_comes_after_the_grace(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more, so the stream is closed where it stands."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "0.1")
    async with asyncio.timeout(40), opened(1):
        step = asyncio.ensure_future(anext(deaf_for_a_while(folder)))
        await pid_in(folder / "pid")
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        (folder / "go").touch()
        await pid_in(folder / "closed")


@both
async def test_cancellation_swallowed_once(transport: str, folder: Path) -> None:
    """A routine that swallows the cancel and returns has returned, as locally."""
    async with unharmed(folder, transport):
        call = asyncio.ensure_future(swallow_once(folder / "swallow"))
        await pid_in(folder / "swallow")
        call.cancel()
        assert await call == "swallowed"


@both
async def test_leaked_tasks(transport: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks left on the worker's loop stay there and hold up neither calls nor the end."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "600")  # for which nobody waits
    async with asyncio.timeout(40):
        async with unharmed(folder, transport):
            assert await leak_tasks(500) == 500
            assert await leak_generators(50) == 50


@both
async def test_leaked_failure(transport: str, folder: Path) -> None:
    """A task or callback left on the loop that raises `SystemExit` does not end the worker."""
    async with unharmed(folder, transport):
        for kind in "SystemExit", "KeyboardInterrupt", "ValueError", "CancelledError":
            assert await leak_failure(kind) == "returned"
            await outlast_leaked_failure()
            assert await add(1, 2) == 3


@both
async def test_loop_stopped_or_closed(transport: str, folder: Path) -> None:
    """The worker's loop goes on, and so do all its calls; closing it is the error it is locally."""
    async with unharmed(folder, transport):
        for after in [0, 0.05] * 3:
            assert await stop_the_loop(after) == "survived"
        with pytest.raises(RuntimeError, match="running"):
            await close_the_loop()


@both
async def test_every_task_cancelled(transport: str, folder: Path) -> None:
    """A routine that cancels all tasks it can see ends calls, never the worker.

    Another caller's call that it hit ends in `CancelledError`, as it would locally; that is not
    a stop of the worker.
    """
    async with opened(1, transport=transport) as pool:
        workers = {worker.id for worker in pool.workers}
        async with asyncio.timeout(20):
            assert await add(1, 2) == 3
            for _ in range(3):
                await cancel_everything()
                assert await add(1, 2) == 3
                assert [i async for i in count(3)] == [0, 1, 2]
                assert await fib(3) == 2  # its calls go by connections of that worker
        assert {worker.id for worker in pool.workers} == workers


@pytest.mark.everywhere
@pytest.mark.parametrize(("way", "status"), [("exit", 3), ("raise", 1), ("return", 1)])
async def test_forked_child_that_comes_back(
    way: str, status: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends, as it would have locally, and answers no call of its parent's."""
    async with unharmed(folder):
        assert await fork(way) == status
    told = capfd.readouterr().err
    assert told == "" if way == "exit" else "forked by a routine" in told
    assert ("on purpose" in told) == (way == "raise")


async def test_signal_handlers_replaced_and_killed() -> None:
    """Its death is noticed though it ignores SIGCHLD and everything else."""
    async with opened() as pool:
        ignorant = await ignore_signals()
        kill([ignorant])
        await until(lambda: ignorant not in pids(pool), what="the death to be noticed")
        await pool.wait(2, timeout=30)
        assert await add(1, 2) == 3


async def test_standard_streams_closed(folder: Path) -> None:
    """A routine that closes the worker's standard streams closes nothing of Wool's."""
    async with unharmed(folder):
        await close_standard_streams()


async def test_no_file_descriptor_left(folder: Path) -> None:
    """A worker without free descriptors is back when they are."""
    async with unharmed(folder):
        call = asyncio.ensure_future(exhaust_descriptors())
        await asyncio.sleep(0.1)  # lets it fill the table
        assert await add(1, 2) == 3
        assert await call > 0


@both
async def test_leaving_the_pool_with_calls_running(transport: str, folder: Path) -> None:
    """They end in `WorkerStopped`, never in `CancelledError`, and their `finally` has run."""
    async with asyncio.timeout(40):
        async with opened(transport=transport, shutdown_timeout=2):
            calls = [asyncio.ensure_future(finish(folder / f"f{i}", 0.2)) for i in range(6)]
            for i in range(6):
                await pid_in(folder / f"f{i}")
        for call in calls:
            with pytest.raises(wool.WorkerStopped):
                await call
    assert len(list(folder.glob("*.finally"))) == 6


async def leave_with_deaf_calls(folder: Path) -> set[int]:
    async with opened(shutdown_timeout=1) as pool:
        calls, workers = list[asyncio.Future[None]](), set[int]()
        while workers != pids(pool) or len(calls) < 4:
            path = folder / f"deaf{len(calls)}"
            calls.append(asyncio.ensure_future(deaf(path)))
            workers.add(await pid_in(path))
    for call in calls:
        with pytest.raises((wool.WorkerStopped, wool.WorkerLost)):
            await call
    return workers


async def leave_with_blocked_calls(folder: Path) -> set[int]:
    async with opened(shutdown_timeout=1):
        calls = [
            asyncio.ensure_future(block(3600, folder / "blocked")),
            asyncio.ensure_future(seize(3600, folder / "seized")),
        ]
        workers = {await pid_in(folder / "blocked"), await pid_in(folder / "seized")}
    for call in calls:
        with pytest.raises((wool.WorkerStopped, wool.WorkerLost)):
            await call
    return workers


async def leave_with_a_thread(folder: Path) -> set[int]:
    async with opened(1, shutdown_timeout=1) as pool:
        await leave_a_thread(3600)
        return pids(pool)


async def leave_with_deaf_signals(folder: Path) -> set[int]:
    async with opened(1, shutdown_timeout=1) as pool:
        await ignore_signals()
        assert await add(1, 2) == 3
        return pids(pool)


@pytest.mark.slow
async def test_leaving_the_pool_whatever_it_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaf, blocked or seized by user code: the end of the pool is bounded, and the workers' too.

    The calls end in `WorkerStopped` or `WorkerLost`, never in `CancelledError`.
    """
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "1")
    async with asyncio.timeout(50):
        for workers in await asyncio.gather(
            asyncio.create_task(leave_with_deaf_calls(folder)),
            asyncio.create_task(leave_with_blocked_calls(folder)),
            asyncio.create_task(leave_with_a_thread(folder)),
            asyncio.create_task(leave_with_deaf_signals(folder)),
        ):
            assert workers
            assert not any(alive(pid) for pid in workers)


async def test_leaving_the_pool_by_cancellation(folder: Path) -> None:
    """A cancelled owner still leaves cleanly, also when it is cancelled while it leaves."""
    entered = asyncio.Event()
    workers: set[int] = set()

    async def own() -> None:
        async with opened(shutdown_timeout=2) as pool:
            workers.update(pids(pool))
            entered.set()
            await stay(folder / "pid")

    owner = asyncio.create_task(own())
    await entered.wait()
    await pid_in(folder / "pid")
    async with asyncio.timeout(20):
        owner.cancel()
        await asyncio.sleep(0.01)  # lets it begin to leave
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
    await until(lambda: not any(alive(pid) for pid in workers), what="the workers to go")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f = g = 3", "TypeError: there it is no async.* function .int."),
        ("def f(): pass\ndef g(): yield", "TypeError: there it is no async.* function .function."),
        ("async def g(): pass\nasync def f(): yield", "TypeError: there it is no async.* function"),
        ("", "AttributeError: module 'edited' has no attribute"),
        ("def f(:", "SyntaxError: invalid syntax"),
    ],
    ids=["value", "plain", "swapped", "empty", "broken"],
)
async def test_a_module_that_was_edited(
    text: str, reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts later imports something else under the name."""
    (folder / "edited.py").write_text("async def f(): pass\nasync def g(): yield\n")
    monkeypatch.syspath_prepend(str(folder))
    edited = importlib.import_module("edited")
    try:
        call, stream = wool.routine(edited.f), wool.routine(edited.g)
        (folder / "edited.py").write_text(text)
        async with opened(1):
            reason = f"edited:. cannot be imported on .*{reason}.*. Check that its module is"
            with pytest.raises(wool.SerializationError, match=reason):
                await call()
            with pytest.raises(wool.SerializationError, match=reason):
                await anext(stream())
    finally:
        del sys.modules["edited"]


@wool.routine
async def hoard() -> str:
    """Leaves no memory for its answer."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    for size in (1 << 20, 64, 1):
        try:
            while True:
                HOARD.append(bytearray(size))
        except MemoryError:
            continue
    return "done"


HOARD: list[bytearray] = []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not kept")
async def test_a_routine_that_leaves_no_memory_to_answer_with() -> None:
    """Its caller is told if that took what an answer takes, and calls are served soon."""

    async def serves() -> bool:
        try:
            return await add(1, 2) == 3
        except wool.WorkerLost:  # what was left was too little for a call
            return False

    async with opened(1):
        async with asyncio.timeout(30):
            # The answer may be that there was too little memory for it, as text if need be.
            with suppress(wool.WorkerLost, wool.SerializationError, wool.RemoteError):
                assert await hoard() == "done"
        await until(serves)
