"""The surroundings of a routine on a worker process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import wool
from support.jobs import add, nap, pid
from support.pools import opened, pids
from support.processes import children
from support.waiting import until

pytestmark = pytest.mark.timeout(60)


@wool.routine
async def main_thread() -> tuple[bool, str]:
    current = threading.current_thread()
    return current is threading.main_thread(), current.name


@wool.routine
async def main_thread_in_steps():
    yield threading.current_thread() is threading.main_thread()
    await asyncio.sleep(0.01)
    yield threading.current_thread() is threading.main_thread()


@wool.routine
async def handle_signal() -> list[int]:
    """Installs a handler, as only the main thread may, and gets the signal."""
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.05)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    return received


@wool.routine
async def handle_signal_on_the_loop() -> int:
    loop = asyncio.get_running_loop()
    received = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR2, received.set_result, 5)
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        return await asyncio.wait_for(received, 30)
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)


@wool.routine
async def surroundings(*names: str) -> tuple[str, list[str | None]]:
    return os.getcwd(), [os.environ.get(name) for name in names]


@wool.routine
async def in_processes(method: str, n: int) -> list[int]:
    """A process pool inside a routine."""
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return await asyncio.gather(
            *(loop.run_in_executor(pool, math.factorial, i) for i in range(n))
        )


@wool.routine
async def in_subprocesses() -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(6 * 9)", stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return done.stdout.strip(), output.decode().strip()


@wool.routine
async def child_status() -> int:
    """Waits for a child of its own: nobody else has reaped it."""
    child = os.fork()
    if child == 0:
        os._exit(5)
    await asyncio.sleep(0.2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@wool.routine
async def in_threads(n: int) -> list[int]:
    return await asyncio.gather(*(asyncio.to_thread(math.factorial, i) for i in range(n)))


@wool.routine
async def in_an_executor_thread() -> int:
    """A second loop in a thread of the worker."""

    async def inside() -> int:
        await asyncio.sleep(0.01)
        return await add(1, 2)

    return await asyncio.to_thread(lambda: asyncio.run(inside()))


@wool.routine
async def signal_settings() -> tuple[set[int], bool]:
    blocked = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
    return blocked, signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


async def test_user_code_runs_on_the_main_thread() -> None:
    """Routines, streams and everything they await run on the worker's main thread."""
    async with opened(1):
        assert await main_thread() == (True, "MainThread")
        assert [on_main async for on_main in main_thread_in_steps()] == [True, True]


async def test_signal_handlers_work() -> None:
    """`signal.signal` and `loop.add_signal_handler` need the main thread, and have it."""
    async with opened(1) as pool:
        before = pids(pool)
        assert await handle_signal() == [signal.SIGUSR1]
        assert await handle_signal_on_the_loop() == 5
        assert pids(pool) == before


async def test_no_signal_is_blocked() -> None:
    """A worker starts with the signal settings of a fresh interpreter."""
    async with opened(1):
        assert await signal_settings() == (set(), True)


async def test_environment_and_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inherited as they are when the pool opens, also where changed at run time."""
    monkeypatch.setenv("SET_AT_RUN_TIME", "yes, ünïcode")
    monkeypatch.delenv("NEVER_SET", raising=False)
    monkeypatch.chdir(folder)
    async with opened(1):
        cwd, values = await surroundings("SET_AT_RUN_TIME", "NEVER_SET", "PATH")
        assert cwd == os.path.realpath(folder)
        assert values == ["yes, ünïcode", None, os.environ["PATH"]]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_process_pool_in_a_routine(method: str) -> None:
    """Worker processes may have children, by every start method, and leave none."""
    async with opened(1) as pool:
        (worker,) = pids(pool)
        expected = [math.factorial(i) for i in range(10)]
        async with asyncio.timeout(30):
            assert await in_processes(method, 10) == expected
            assert await in_processes(method, 10) == expected
        if method == "fork":
            await until(lambda: not children(worker), what="the children to be gone")


async def test_subprocess_in_a_routine() -> None:
    """`subprocess` and `asyncio.create_subprocess_exec` work; nobody reaps their children."""
    async with opened(1):
        assert await in_subprocesses() == ("42", "54")
        assert await child_status() == 5
        assert await asyncio.gather(*(in_subprocesses() for _ in range(4))) == [("42", "54")] * 4


async def test_threads_in_a_routine() -> None:
    """`asyncio.to_thread` works, and a routine called from another thread's loop of a worker."""
    async with opened(2):
        assert await in_threads(5) == [1, 1, 2, 6, 24]
        assert await in_an_executor_thread() == 3


async def test_descriptors_are_not_inherited(folder: Path) -> None:
    """A file that the caller holds open is not held open by its workers."""
    path = folder / "file"
    with path.open("w"):
        async with opened(1) as pool:
            (worker,) = pids(pool)
            assert await add(1, 2) == 3
            held = {os.readlink(link) for link in Path(f"/proc/{worker}/fd").iterdir()}
            assert str(path) not in held


async def test_pool_reports_its_workers() -> None:
    """`pool.workers` tells id, address, host, pid and versions; `wait` waits for them."""
    async with opened(2) as pool:
        workers = pool.workers
        assert len(workers) == 2
        assert len({worker.id for worker in workers}) == 2
        assert all(worker.id and worker.address.startswith("unix://") for worker in workers)
        assert {worker.host for worker in workers} == {os.uname().nodename}

        async def all_are_called() -> bool:
            return set(await asyncio.gather(*(nap(0.05) for _ in range(8)))) == pids(pool)

        await until(all_are_called)  # one may take long to answer at first
        assert {worker.python for worker in workers} == {
            f"{sys.version_info.major}.{sys.version_info.minor}"
        }
        assert all("cloudpickle" in worker.serializers for worker in workers)
        await pool.wait(2, timeout=1)
        with pytest.raises((TimeoutError, wool.NoWorkersAvailable)):
            await pool.wait(3, timeout=0.2)


async def test_workers_are_direct_children() -> None:
    """They belong to the caller's process, so that a shell or supervisor sees them."""
    async with opened(2) as pool:
        assert pids(pool) <= children(os.getpid())
        assert await pid() in pids(pool)
