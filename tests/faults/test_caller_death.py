"""Callers that end, politely or not: their workers go too, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from support.processes import Script, alive, gone, kill
from support.waiting import until_sync

pytestmark = pytest.mark.timeout(150)

WORK = {
    "asleep": "await asyncio.sleep(3600)",
    "blocked": "time.sleep(3600)",
    # Keeps the interpreter lock, heeds no signal, and computes nothing: it locks a mutex twice.
    "seized": "c = ctypes.PyDLL(None); m = ctypes.create_string_buffer(64); "
    "c.pthread_mutex_lock(m); c.pthread_mutex_lock(m)",
    "forking": """try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            os.fork()""",
}

CALLER = """
import asyncio, ctypes, os, pathlib, sys, time
import wool

folder = pathlib.Path(sys.argv[1])

@wool.routine
async def hold(number):
    (folder / f"began-{{number}}").touch()
    try:
        {work}
    finally:
        (folder / f"ended-{{number}}").touch()

async def main():
    async with wool.WorkerPool(size=2) as pool:
        await pool.wait(2, timeout=100)
        calls = [asyncio.ensure_future(hold(i)) for i in range({calls})]
        while len(list(folder.glob("began-*"))) < {calls}:
            await asyncio.sleep(0.02)
        print(*(worker.pid for worker in pool.workers), flush=True)
        {then}
        await asyncio.gather(*calls)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def caller(
    folder: Path, *, work: str = "asleep", calls: int = 4, then: str = "pass", **env: str
) -> Script:
    code = CALLER.format(work=WORK[work], calls=calls, then=then)
    return Script(code, folder, str(folder), env=env)


def ended(folder: Path) -> int:
    return len(list(folder.glob("ended-*")))


def workers_of(script: Script) -> list[int]:
    found = [int(word) for word in script.line(100).split()]  # many may be starting at once
    assert len(found) == 2 and all(alive(pid) for pid in found)
    assert set(found) < script.survivors()
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_caller_killed(folder: Path, number: signal.Signals) -> None:
    """Its running calls are cancelled, their `finally` runs, its workers go, nothing is left."""
    with caller(folder) as script:
        workers = workers_of(script)
        script.process.send_signal(number)
        assert script.finish() == -number
        gone(script, within=20)
        assert ended(folder) == 4
        until_sync(lambda: not any(alive(pid) for pid in workers), within=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_process_group_killed(folder: Path, number: signal.Signals) -> None:
    """The same when workers get the signal, too: service managers and closed terminals do that."""
    with caller(folder) as script:
        workers_of(script)
        os.killpg(script.process.pid, number)
        assert script.finish() == -number
        gone(script, within=20)
        assert ended(folder) == 4


def test_caller_killed_and_routines_that_fork_then(folder: Path) -> None:
    """Their children come back from them, and have nobody to answer; they end, too."""
    with caller(folder, work="forking") as script:
        workers_of(script)
        script.process.kill()
        script.finish()
        gone(script, within=20)
        assert ended(folder) == 4


FORKING = """child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print(child, flush=True)"""


@pytest.mark.slow
def test_caller_killed_whose_forked_child_lives(folder: Path) -> None:
    """The same when a child of the caller holds a copy of all its sockets and pipes."""
    with caller(folder, then=FORKING) as script:
        workers_of(script)
        child = int(script.line())
        try:
            script.process.kill()
            script.finish()
            gone(script, within=30, except_for=[child])
            assert alive(child)
            assert ended(folder) == 4
        finally:
            kill([child])


def sweep(script: Script) -> None:
    """Checks that a later pool removes the socket folder of one that could not."""
    left = list(script.temp.iterdir())
    assert all(path.name.startswith("wool-") for path in left)
    an_hour_ago = time.time() - 3600
    for path in left:
        os.utime(path, (an_hour_ago, an_hour_ago))
    code = (
        "import asyncio, wool\n"
        "async def main():\n"
        "    async with wool.WorkerPool(size=1):\n"
        "        pass\n"
        "asyncio.run(main())\n"
    )
    environment = {**script.environment, "TMPDIR": str(script.temp)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert script.leftovers() == []


def test_caller_killed_with_a_stopped_worker(folder: Path) -> None:
    """A worker that was stopped when its caller died leaves as soon as it goes on."""
    with caller(folder) as script:
        workers = workers_of(script)
        os.kill(workers[0], signal.SIGSTOP)
        script.process.kill()
        script.finish()
        until_sync(lambda: script.survivors() <= {workers[0]}, what="the other worker to go")
        kill([workers[0]], signal.SIGCONT)
        gone(script, within=30)


def test_caller_killed_during_the_start(folder: Path) -> None:
    """Killed while workers start: none stays."""
    code = (
        "import asyncio, tempfile, wool\n"
        "tempfile.gettempdir()\n"  # Python makes a file in it, and removes it, to see if it can
        "async def main():\n"
        "    print('start', flush=True)\n"
        "    async with wool.WorkerPool(size=4) as pool:\n"
        "        await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    with Script(code, folder) as script:
        script.line()
        until_sync(lambda: len(script.survivors()) > 1, what="a worker's process")
        script.process.kill()
        script.finish()
        gone(script, within=30)
        assert script.stderr == ""


def test_caller_killed_as_it_has_started_a_process(folder: Path) -> None:
    """The worker, which nobody has told what to do, has nothing to say."""
    code = (
        "import asyncio, os, signal\n"
        "from wool._launchers.local import LocalLauncher\n"
        "from wool._worker.process import WorkerProcess\n"
        "async def main():\n"
        "    process = WorkerProcess(LocalLauncher(), 0)\n"
        "    print('started', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    with Script(code, folder) as script:
        script.finish()
        gone(script, within=30)
        assert script.stderr == ""


def test_ctrl_c(folder: Path) -> None:
    """Ctrl-C in a terminal reaches caller and workers: a clean end, and nobody else speaks."""
    with caller(folder) as script:
        workers_of(script)
        os.killpg(script.process.pid, signal.SIGINT)
        assert script.line() == "interrupted"
        assert script.finish() == 0
        assert ended(folder) == 4
        assert script.survivors() == set()
        assert script.leftovers() == []
        assert script.stderr == ""


WAYS = {
    # how the caller ends inside of its pool: the statement, the exit status
    "normally": ("pass", 0),
    "by an exception": ("raise ValueError('on purpose')", 1),
    "by sys.exit": ("sys.exit(3)", 3),
    "by KeyboardInterrupt": ("raise KeyboardInterrupt", -signal.SIGINT),
    "with running calls": ("task = asyncio.ensure_future(hold(1)); await began(1)", 0),
    "by sys.exit with running calls": (
        "task = asyncio.ensure_future(hold(1)); await began(1); sys.exit(3)",
        3,
    ),
    "by os._exit": ("os._exit(4)", 4),
    "by abort": ("os.abort()", -signal.SIGABRT),
}

ENDING = """
import asyncio, os, pathlib, sys
import wool

folder = pathlib.Path(sys.argv[1])

@wool.routine
async def hold(number):
    (folder / f"began-{{number}}").touch()
    try:
        await asyncio.sleep(3600)
    finally:
        (folder / f"ended-{{number}}").touch()

@wool.routine
async def add(x, y):
    return x + y

async def began(number):
    while not (folder / f"began-{{number}}").exists():
        await asyncio.sleep(0.02)

async def main():
    async with wool.WorkerPool(size=2, shutdown_timeout=2) as pool:
        print(await add(1, 2), flush=True)
        {way}

asyncio.run(main())
"""


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_when_a_caller_ends(folder: Path, way: str) -> None:
    """However it ends: no process, socket, file or shared memory; at once if it ends politely."""
    statement, status = WAYS[way]
    with Script(ENDING.format(way=statement), folder, str(folder)) as script:
        assert script.line() == "3"
        assert script.finish() == status
        if way in ("by os._exit", "by abort"):
            gone(script, within=20)
        else:
            assert script.survivors() == set()
            assert script.leftovers() == []
        assert ended(folder) == len(list(folder.glob("began-*")))
        if way in ("normally", "by sys.exit"):
            assert "Traceback" not in script.stderr


NEVER_CLOSED = {
    "loop": ("loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\n"),
    "asyncio.run": "asyncio.run(main())\n",  # cancels all tasks, those that keep workers as well
}


@pytest.mark.parametrize("way", NEVER_CLOSED)
def test_nothing_is_left_by_a_pool_that_was_never_closed(way: str, folder: Path) -> None:
    """A pool still open when the interpreter exits, as in a notebook whose kernel is shut down."""
    code = (
        "import asyncio, wool\n"
        "@wool.routine\n"
        "async def add(x, y):\n"
        "    return x + y\n"
        "async def main():\n"
        "    await pool.__aenter__()\n"
        "    print(await add(1, 2), flush=True)\n"
        "pool = wool.WorkerPool(size=2)\n"
    )
    with Script(code + NEVER_CLOSED[way], folder) as script:
        assert script.line() == "3"
        assert script.finish(30) == 0
        gone(script, within=20)
        assert script.stderr == ""


def test_nothing_is_left_after_killed_workers(folder: Path) -> None:
    """A worker killed by `kill -9` cannot clean up; somebody does."""
    code = (
        "import asyncio, os, signal, wool\n"
        "@wool.routine\n"
        "async def add(x, y):\n"
        "    return x + y\n"
        "async def main():\n"
        "    async with wool.WorkerPool(size=2) as pool:\n"
        "        await pool.wait(2, timeout=30)\n"
        "        for _ in range(2):\n"
        "            victims = {worker.pid for worker in pool.workers}\n"
        "            for pid in victims:\n"
        "                os.kill(pid, signal.SIGKILL)\n"
        "            while victims & {worker.pid for worker in pool.workers}:\n"
        "                await asyncio.sleep(0.02)\n"
        "            await pool.wait(2, timeout=30)\n"
        "        print(await add(1, 2))\n"
        "asyncio.run(main())\n"
    )
    with Script(code, folder) as script:
        assert script.output(60) == "3"
        assert script.survivors() == set()
        assert script.leftovers() == []


# Workers that take their time


Slowly = Generator[None, None, None]
"""Ends a caller whose workers do not heed; then checks that they go."""


def slowly_by_signal(folder: Path, number: signal.Signals, **env: str) -> Slowly:
    with caller(folder, work="blocked", calls=2, **env) as script:
        workers_of(script)
        os.killpg(script.process.pid, number)
        yield
        assert script.finish() == -number
        gone(script, within=20)


def slowly_while_they_drain(folder: Path, **env: str) -> Slowly:
    """They do not wait any longer for calls that nobody waits for."""
    with caller(folder, work="blocked", calls=2, **env) as script:
        for worker in workers_of(script):
            os.kill(worker, signal.SIGTERM)
        until_sync(lambda: len(script.survivors()) >= 4, within=30, what="their replacements")
        script.process.kill()
        yield
        script.finish()
        gone(script, within=20)


def slowly_while_a_child_lives(folder: Path, **env: str) -> Slowly:
    """A child of the caller that holds a copy of all its sockets and pipes."""
    with caller(folder, work="blocked", calls=2, then=FORKING, **env) as script:
        workers_of(script)
        child = int(script.line())
        script.process.kill()
        yield
        script.finish()
        gone(script, within=30, except_for=[child])
        assert alive(child)


def slowly_by_ctrl_c(folder: Path, **env: str) -> Slowly:
    patient = CALLER.replace("WorkerPool(size=2)", "WorkerPool(size=2, shutdown_timeout=2)")
    patient = patient.format(work=WORK["blocked"], calls=2, then="pass")
    with Script(patient, folder, str(folder), env=env) as script:
        workers_of(script)
        os.killpg(script.process.pid, signal.SIGINT)
        yield
        assert script.finish(50) == 0
        gone(script, within=20)


def slowly_by_kill(folder: Path, **env: str) -> Slowly:
    with caller(folder, work="blocked", calls=2, **env) as script:
        workers_of(script)
        script.process.kill()
        yield
        gone(script, within=40)


def slowly_with_the_interpreter_lock(folder: Path, **env: str) -> Slowly:
    """Only these may leave something: their socket folder, which the next pool removes."""
    with caller(folder, work="seized", calls=2, **env) as script:
        workers_of(script)
        script.process.kill()
        yield
        until_sync(lambda: not script.survivors(), within=40, what="the workers to be gone")
        sweep(script)


SLOWLY: dict[str, Callable[..., Slowly]] = {
    "by SIGTERM": partial(slowly_by_signal, number=signal.SIGTERM),
    "by SIGHUP": partial(slowly_by_signal, number=signal.SIGHUP),
    "by SIGKILL": slowly_by_kill,
    "by Ctrl-C": slowly_by_ctrl_c,
    "while they drain": slowly_while_they_drain,
    "while a child lives": slowly_while_a_child_lives,
    "in C code": slowly_with_the_interpreter_lock,
}


@pytest.fixture(scope="module", autouse=True)
def going(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[None]]]:
    """Ends all these callers, and checks what their workers do while other tests run."""
    found = [item for item in request.session.items if item.path == request.path]
    specs = [getattr(item, "callspec", None) for item in found]
    selected = [spec.params for spec in specs if spec is not None and "how" in spec.params]
    begun: dict[tuple[str, str], Slowly] = {}
    with tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as name:
        for number, params in enumerate(selected):
            folder = Path(name, str(number))
            folder.mkdir()
            key = params["how"], params["carrier"]
            begun[key] = SLOWLY[key[0]](folder, WOOL_TRANSPORT=key[1])
        with ThreadPoolExecutor(2) as executor:  # all at once would leave others no processor
            ending = {key: executor.submit(next, each) for key, each in begun.items()}
        with ThreadPoolExecutor(max(1, len(begun))) as executor:
            yield {key: executor.submit(checked, ending[key], each) for key, each in begun.items()}


def checked(ending: Future[None], each: Slowly) -> None:
    ending.result()
    next(each, None)


@pytest.mark.parametrize("how", SLOWLY)
def test_blocked_workers_never_outlive_their_pool(
    how: str, carrier: str, going: dict[tuple[str, str], Future[None]]
) -> None:
    """Though user code keeps the loop, or the whole process."""
    going[how, carrier].result()
