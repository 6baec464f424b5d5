"""One pool, several threads and event loops: each gets links of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, count, fib, nap
from support.pools import opened, pids
from support.waiting import pid_in, until
from wool._pool.pool import OwnedPool

pytestmark = pytest.mark.timeout(60)

both = pytest.mark.parametrize("transport", ["unix", "grpc", "memory"])  # `ws` is as `unix`


@wool.routine
async def until_cancelled(path: Path) -> None:
    path.with_suffix(".began").touch()
    try:
        await asyncio.sleep(3600)
    finally:
        path.with_suffix(".ended").touch()


@wool.routine
async def fail() -> None:
    raise KeyError("on purpose")


@wool.routine
async def closing(path: Path) -> AsyncGenerator[int]:
    try:
        yield 1
    finally:
        path.touch()


async def live() -> AsyncGenerator[int]:
    for i in range(3):
        yield i


@wool.routine
async def total(numbers: Any) -> int:
    return sum([number async for number in numbers])


async def various(n: int) -> None:
    """Calls, nested calls, streams, failures, cancellation, all on the current loop."""
    assert await asyncio.gather(*(add(i, n) for i in range(50))) == [i + n for i in range(50)]
    assert [i async for i in count(5)] == list(range(5))
    assert await fib(5) == 5
    with pytest.raises(KeyError):
        await fail()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await nap(3600)
    assert sorted([x async for x in wool.map(add, range(5), range(5))]) == [0, 2, 4, 6, 8]


@both
async def test_several_threads_at_once(transport: str) -> None:
    """`asyncio.run` in four threads, beside the loop that opened the pool."""
    async with opened(2, transport=transport):
        with ThreadPoolExecutor(4) as threads:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(30):
                await asyncio.gather(
                    various(0),
                    *(
                        loop.run_in_executor(threads, lambda i=i: asyncio.run(various(i)))
                        for i in range(1, 9)
                    ),
                )


def without_context(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Task[Any]:
    """A task factory as they were when tasks had no `context`."""
    return asyncio.Task(work, loop=loop)


FACTORIES = [without_context]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


@pytest.mark.parametrize("factory", FACTORIES)
async def test_task_factory(factory: Any) -> None:
    """The user's tasks are as they like them, on both sides."""
    asyncio.get_running_loop().set_task_factory(factory)
    async with wool.Worker() as worker, wool.WorkerPool(discovery=[worker.info.address]):
        await various(1)
        async with aclosing(live()) as numbers:
            assert await total(numbers) == 3


@pytest.mark.parametrize("factory", FACTORIES)
async def test_task_factory_and_a_worker_that_comes_later(factory: Any, folder: Path) -> None:
    """It is dialled again, also if a task that dials had ended when it was made."""
    asyncio.get_running_loop().set_task_factory(factory)
    late = f"unix://{folder}/socket"

    async def in_vain() -> bool:
        with pytest.raises(wool.NoWorkersAvailable) as caught:
            await pool.wait(2, timeout=0.1)
        return "nobody listens there" in str(caught.value)

    async with wool.Worker() as first:
        async with wool.WorkerPool(discovery=[first.info.address, late]) as pool:
            await until(in_vain, what="it to be dialled")
            async with wool.Worker(address=late):
                await pool.wait(2, timeout=30)


async def test_load_that_a_loop_had_heard_of_before_it_ended(folder: Path) -> None:
    async with opened(1) as pool:
        running = [asyncio.create_task(until_cancelled(folder / str(n))) for n in range(5)]
        await until(lambda: len(list(folder.glob("*.began"))) == 5)
        await asyncio.to_thread(asyncio.run, once())
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await until(lambda: pool.workers[0].load == 0, what="the load to go")


@both
async def test_thread_in_the_pools_context(transport: str) -> None:
    """`asyncio.to_thread` carries the context; a plain thread uses the only pool there is."""
    async with opened(2, transport=transport):
        await asyncio.to_thread(lambda: asyncio.run(various(1)))
        failures: list[BaseException] = []

        def plain() -> None:
            try:
                asyncio.run(various(2))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=plain)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert failures == []


@both
def test_pool_reused_by_loops_one_after_another(transport: str) -> None:
    """The same pool object, opened again on another loop."""
    pool = wool.WorkerPool(size=2, transport=transport)

    async def once(n: int) -> set[str]:
        async with pool:
            await pool.wait(2, timeout=30)
            await various(n)
            return {worker.id for worker in pool.workers}

    first, second = asyncio.run(once(1)), asyncio.run(once(2))
    assert not first & second


async def test_pool_opened_twice_at_once() -> None:
    """That is an error, and does not disturb the pool that is open."""
    async with opened(1) as pool:
        with pytest.raises((wool.WoolError, RuntimeError)):
            async with pool:
                pass
        assert await add(1, 2) == 3


async def test_pool_opened_by_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is told so, however far the first has got."""

    def slow_load(pool: OwnedPool) -> None:
        loading.set()
        go.wait(40)
        load(pool)

    async def open_and_call() -> int:
        async with pool:
            return await add(1, 2)

    load, loading, go = OwnedPool._load, threading.Event(), threading.Event()
    monkeypatch.setattr(OwnedPool, "_load", slow_load)
    pool = wool.WorkerPool(size=1)
    first = asyncio.create_task(asyncio.to_thread(asyncio.run, open_and_call()))
    await asyncio.to_thread(loading.wait)
    try:
        with pytest.raises(wool.WoolError, match="open already"):
            await asyncio.wait_for(pool.__aenter__(), 20)
    finally:
        go.set()
        assert await first == 3
    assert await open_and_call() == 3


async def test_loop_that_ends_with_calls_running(folder: Path) -> None:
    """A thread's loop is closed while its calls run: they are cancelled; others go on."""

    async def start_and_leave() -> None:
        task = asyncio.ensure_future(until_cancelled(folder / "call"))
        await until(lambda: (folder / "call.began").exists(), what="the call to begin")
        assert not task.done()

    async with opened(2) as pool:
        before = pids(pool)
        await asyncio.to_thread(lambda: asyncio.run(start_and_leave()))
        await until(lambda: (folder / "call.ended").exists(), what="its `finally`")
        await various(1)
        assert pids(pool) == before


async def once() -> int:
    return await add(1, 2)


@both
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_loop_that_is_closed_after_use(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`run_until_complete` and `close`, as old programs have it, need not know of our tasks."""

    def use_and_close() -> int:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(once())
        finally:
            loop.close()

    async with opened(1, transport=transport):
        for _ in range(3):
            assert await asyncio.to_thread(use_and_close) == 3
            gc.collect()
    gc.collect()
    assert caplog.messages == []


@both
async def test_stream_stepped_on_another_loop(transport: str, folder: Path) -> None:
    """It is closed where it began, and whoever steps it is told why; the pool serves on."""

    def elsewhere(step: Any) -> None:
        async def made() -> Any:
            return await step

        with pytest.raises(RuntimeError, match="different event loop"):
            asyncio.run(made())

    steps: list[Callable[[Any], Any]] = [
        lambda stream: stream.__anext__(),
        lambda stream: stream.athrow(KeyError()),
        lambda stream: stream.aclose(),
    ]
    async with opened(1, transport=transport):
        for number, step in enumerate(steps):
            closed = folder / f"closed-{number}"
            stream = closing(closed)
            await anext(stream)
            await asyncio.to_thread(elsewhere, step(stream))
            await until(closed.exists, what="its `finally`")
        await various(1)


async def test_many_short_lived_loops() -> None:
    """A hundred loops one after another leave no threads, tasks or descriptors behind."""
    loop = asyncio.get_running_loop()

    def run() -> int:
        return asyncio.run(once())

    with ThreadPoolExecutor(1) as thread:
        async with opened(1):
            for _ in range(5):
                await loop.run_in_executor(thread, run)
            files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
            for _ in range(100):
                assert await loop.run_in_executor(thread, run) == 3
            await until(
                lambda: (
                    len(os.listdir("/proc/self/fd")) <= files
                    and threading.active_count() <= threads
                ),
                what="descriptors and threads to go",
            )


def cancel_others() -> set[Any]:
    """As a careless shutdown handler does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return others


@both
async def test_every_task_of_another_loop_cancelled(transport: str) -> None:
    """The loop goes on, and so do calls from it."""

    async def main(*, dialling: bool) -> None:
        if not dialling:
            assert await add(1, 2) == 3
        lost = asyncio.create_task(add(3, 4))
        await asyncio.sleep(0)
        cancel_others()
        with pytest.raises(asyncio.CancelledError):
            await lost
        async with asyncio.timeout(20):
            assert await add(1, 2) == 3

    async with opened(1, transport=transport):
        for dialling in (True, False):
            await asyncio.to_thread(asyncio.run, main(dialling=dialling))


async def test_leaving_that_is_cancelled_as_workers_end(folder: Path) -> None:
    """They are killed, and no child of this process when that is over."""
    pool = wool.WorkerPool(size=1)
    await pool.__aenter__()
    call = asyncio.create_task(until_tidy(folder, folder / "never"))
    worker = await pid_in(folder / "began")
    leaving = asyncio.create_task(pool.__aexit__(KeyError, KeyError(), None))
    await until((folder / "tidying").exists)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    with pytest.raises(ChildProcessError):
        os.waitpid(worker, os.WNOHANG)
    with pytest.raises(wool.WorkerStopped):
        await call


@both
async def test_every_task_of_the_pools_loop_cancelled(transport: str) -> None:
    """Those that keep its workers too: calls say so, and do not wait."""
    async with opened(2, transport=transport):
        assert await add(1, 2) == 3
        await asyncio.wait(cancel_others())
        with pytest.raises(wool.NoWorkersAvailable, match="have been cancelled"):
            async with asyncio.timeout(20):
                await add(1, 2)


@wool.routine
async def until_tidy(folder: Path, release: Path | None = None) -> None:
    (folder / "began").write_text(str(os.getpid()))
    try:
        await asyncio.sleep(3600)
    finally:
        (folder / "tidying").touch()
        if release is None:
            await asyncio.sleep(0.5)
        else:
            await until(release.exists, within=60)
        (folder / "tidy").touch()


@both
async def test_pool_left_as_every_task_is_cancelled(transport: str, folder: Path) -> None:
    """Workers that were told to stop have the time that they were given."""
    with pytest.raises(KeyError):
        async with opened(1, transport=transport):
            call = asyncio.create_task(until_tidy(folder))
            await pid_in(folder / "began")
            cancel_others()
            await until((folder / "tidying").exists)
            raise KeyError
    assert (folder / "tidy").exists()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_pools_left_in_the_order_they_were_entered() -> None:
    """Each gives back what it was entered in; with none left, routines run here."""
    outer, middle, inner = (wool.WorkerPool(size=1, transport="memory") for _ in range(3))
    for pool in (outer, middle, inner):
        await pool.__aenter__()
    await middle.__aexit__(None, None, None)
    assert wool.current_pool() is inner
    await outer.__aexit__(None, None, None)
    assert wool.current_pool() is inner and await add(1, 2) == 3
    await inner.__aexit__(None, None, None)
    assert wool.current_pool() is None and await add(1, 2) == 3


async def test_nested_pools() -> None:
    """The innermost pool of the context is used; leaving it gives the outer one back."""
    async with opened(1) as outer:
        (outside,) = pids(outer)
        assert await nap(0) == outside
        async with opened(1) as inner:
            (inside,) = pids(inner)
            assert await nap(0) == inside
            with outer.use():
                assert await nap(0) == outside
            assert await nap(0) == inside
        assert await nap(0) == outside
