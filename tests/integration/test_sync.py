"""For code that is not async: `wool.Executor` and what uses one, and `wool.SyncPool`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, count, pid
from support.waiting import until_sync
from wool.exceptions import BrokenWorkerPool


@pytest.fixture(scope="module")
def executor() -> Iterator[wool.Executor]:
    with wool.Executor(2) as executor:
        executor.submit(int).result()  # from now on there are workers
        yield executor


def square(x: int) -> int:
    return x * x


class Shop:
    def __init__(self, price: int) -> None:
        self.price = price

    def total(self, amount: int) -> int:
        return self.price * amount

    __call__ = total


def closure(step: int) -> Any:
    return lambda x: x + step


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x


def with_a_loop_of_its_own(x: int) -> int:
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    return asyncio.run(later(x))


def on_the_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (square, (3,), 9),
        (pow, (2, 8), 256),
        (functools.partial(pow, 2), (8,), 256),
        (closure(1), (2,), 3),
        (functools.partial(closure(1), x=2), (), 3),
        (Shop(3).total, (2,), 6),
        (Shop(3), (2,), 6),
        (with_a_loop_of_its_own, (7,), 7),
        (on_the_main_thread, (), True),
    ],
)
def test_plain_functions(executor: wool.Executor, function: Any, args: Any, result: object) -> None:
    assert executor.submit(function, *args).result() == result


def raises() -> None:
    raise LookupError("no such model")


def ends() -> None:
    raise StopIteration


def exits() -> None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("function", "args", "error", "words"),
    [
        (raises, (), LookupError, "no such model"),
        (exits, (), SystemExit, "3"),
        (ends, (), RuntimeError, "StopIteration"),
        (square, (threading.Lock(),), wool.SerializationError, r"'args\[0\]' \(lock\) of square"),
        (threading.Lock, (), wool.SerializationError, "lock"),
    ],
)
def test_errors(executor: wool.Executor, function: Any, args: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        executor.submit(function, *args).result()
    if function is raises:
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "raises"


def test_an_async_function_is_not_for_an_executor(executor: wool.Executor) -> None:
    with pytest.raises(TypeError, match=r"later\(\) is async: call it with wool.SyncPool"):
        executor.submit(later, 1)


at_work = 0


def work_alone(seconds: float) -> tuple[int, int]:
    global at_work
    at_work += 1
    time.sleep(seconds)
    seen, at_work = at_work, at_work - 1
    return seen, os.getpid()


def test_routines_go_past_an_executor(executor: wool.Executor) -> None:
    assert asyncio.run(pid()) == os.getpid()
    with wool.SyncPool(1) as pool:
        assert asyncio.run(pid()) == pool.workers[0].pid


def test_one_at_a_time_on_each_of_all_workers(executor: wool.Executor) -> None:
    results = list(executor.map(work_alone, [0.02] * 20))
    assert {seen for seen, _ in results} == {1}
    assert len({worker for _, worker in results}) == 2


def test_map(executor: wool.Executor) -> None:
    for chunksize in (1, 3, 100):
        assert list(executor.map(pow, range(10), range(9), chunksize=chunksize)) == [
            x**x for x in range(9)
        ]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


def test_what_can_be_cancelled_and_what_not(folder: Path) -> None:
    go = folder / "go"
    executor = wool.Executor(1)
    running = executor.submit(wait_for, go)
    until_sync(running.running)
    others = [executor.submit(square, n) for n in range(9)]
    assert not running.cancel()
    assert others[-1].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(TimeoutError):
        running.result(timeout=0.01)
    go.touch()
    done, left = concurrent.futures.wait([running, *others], timeout=30)
    assert not left
    assert sum(future.cancelled() for future in done) >= 8  # one may have been given to the worker
    executor.shutdown()


def test_a_worker_that_dies_is_replaced() -> None:
    with wool.Executor(1) as executor:
        lost = executor.submit(os._exit, 3).exception()
        assert isinstance(lost, BrokenWorkerPool)
        assert isinstance(lost, concurrent.futures.BrokenExecutor)
        assert isinstance(lost, wool.WorkerLost)
        assert (lost.outcome, lost.exitcode) == ("unknown", 3)
        assert executor.submit(square, 3).result() == 9


weight = 0


def initialize(value: int) -> None:
    global weight
    weight = value


def weigh(x: int) -> int:
    return weight * x


def test_initializer() -> None:
    with wool.Executor(1, initializer=initialize, initargs=(5,)) as executor:
        assert executor.submit(weigh, 2).result() == 10
        executor.submit(os._exit, 3).exception()
        assert executor.submit(weigh, 2).result() == 10


def test_one_that_cannot_start() -> None:
    """It is of no more use, as those of Python."""
    with wool.Executor(1, initializer=raises) as executor:
        first = executor.submit(square, 3)
        with pytest.raises(BrokenWorkerPool, match="LookupError: no such model") as raised:
            first.result()
        assert raised.value.outcome == "not started"
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no such model"):
            until_sync(lambda: executor.submit(square, 3).exception() and False)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 3}, TypeError, "initializer must be a callable"),
        ({"initializer": raises, "lifespan": raises}, TypeError, "call it there"),
        ({"transports": "unix"}, TypeError, "Did you mean transport="),
    ],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wool.Executor(**arguments)


def test_ctrl_c_ends_what_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "0.1")
    with pytest.raises(KeyboardInterrupt):
        with wool.Executor(1) as executor:
            running = executor.submit(wait_for, folder / "never")
            others = [executor.submit(square, n) for n in range(9)]
            until_sync(running.running)
            raise KeyboardInterrupt
    assert isinstance(running.exception(), BrokenWorkerPool)
    assert others[-1].cancelled()


SCRIPT = """
import atexit, os, sys, time, wool

value = 0

def initialize(n):
    global value
    value = n

def tell():
    time.sleep(0.2)
    print("value", value, flush=True)

@atexit.register
def too_late():
    try:
        executor.submit(tell)
    except RuntimeError as error:
        print(error)

executor = wool.Executor(1, initializer=initialize, initargs=(3,))
executor.submit(tell)
executor.submit(tell)
if sys.argv[1:]:
    executor.shutdown(wait=False)
"""


@pytest.mark.parametrize("arguments", [(), ("shut down",)])
def test_the_interpreter_waits(arguments: tuple[str, ...]) -> None:
    """Also for functions of a script that has no file, and no guard."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-", *arguments],
        input=SCRIPT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "value 3",
        "value 3",
        "cannot schedule new futures after shutdown",
    ]


# Other libraries ----------------------------------------------------------------------------------


async def test_asyncio(executor: wool.Executor) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, square, 3) == 9
    with pytest.raises(LookupError):
        await loop.run_in_executor(executor, raises)


def test_dask(executor: wool.Executor) -> None:
    import dask

    inc, total = dask.delayed(square), dask.delayed(sum)
    worker = dask.delayed(os.getpid)()
    result, process = dask.compute(total([inc(n) for n in range(10)]), worker, scheduler=executor)
    assert result == 285
    assert process != os.getpid()


def test_joblib(executor: wool.Executor) -> None:
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    import wool.joblib

    wool.joblib.register()
    x, y = make_classification(60, random_state=0)
    grid = {"C": [0.1, 1], "gamma": [0.01, 0.1]}
    alone = GridSearchCV(SVC(), grid).fit(x, y)
    with joblib.parallel_config("wool", executor=executor, n_jobs=-1):
        search = GridSearchCV(SVC(), grid).fit(x, y)
    assert (search.best_params_, search.best_score_) == (alone.best_params_, alone.best_score_)
    for options in ({"executor": executor}, {"transport": "unix"}):
        with joblib.parallel_config("wool", n_jobs=2, **options):
            run = joblib.Parallel(return_as="generator")
            assert list(run(joblib.delayed(square)(n) for n in range(50))) == [
                n * n for n in range(50)
            ]
            assert os.getpid() not in run(joblib.delayed(os.getpid)() for _ in range(4))
            with pytest.raises(LookupError):
                joblib.Parallel()(joblib.delayed(raises)() for _ in range(9))
    with joblib.parallel_config("wool", n_jobs=1):  # nothing is started
        assert joblib.Parallel()([joblib.delayed(os.getpid)()]) == [os.getpid()]


# Routines -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> Iterator[wool.SyncPool]:
    with wool.SyncPool(2, quorum=2) as pool:
        yield pool


name: ContextVar[str] = ContextVar("name", default="nobody")


@wool.routine
async def who() -> str:
    return name.get()


@wool.routine
async def fail() -> None:
    raise LookupError("no such model")


@wool.routine
async def mean(book: Path) -> AsyncGenerator[float, float]:
    total = number = 0.0
    try:
        while True:
            try:
                total += yield total / max(number, 1)
                number += 1
            except ZeroDivisionError:
                total = number = 0
    finally:
        book.touch()


def test_calls(pool: wool.SyncPool) -> None:
    assert pool.call(add, 1, y=2) == 3
    assert {f.result() for f in [pool.submit(add, 1, 2) for _ in range(9)]} == {3}
    with pytest.raises(LookupError, match="no such model"):
        pool.call(fail)
    token = name.set("Ann")
    assert pool.call(who) == "Ann"
    name.reset(token)
    pool.call(pool.wait, 2)

    async def wait_there() -> int:
        return pool.call(add, 1, 2)

    with pytest.raises(wool.WoolError, match="`await` it"):
        pool.call(wait_there)
    with pool.use():
        assert asyncio.run(pid()) in {worker.pid for worker in pool.workers}
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda n: pool.call(add, n, -n), range(40))) == {0}


def test_streams(pool: wool.SyncPool, folder: Path) -> None:
    assert list(pool.stream(count, 3)) == [0, 1, 2]
    assert list(pool.stream(wool.map, add, range(3), range(3))) == [0, 2, 4]
    workers = {worker.pid for worker in pool.workers}
    assert {process for _, process in pool.stream(pool.broadcast, pid)} == workers
    stream = pool.stream(mean, folder / "ended")
    with contextlib.closing(stream):
        next(stream)
        assert [stream.send(n) for n in (2, 4, 9)] == [2, 3, 5]
        assert stream.throw(ZeroDivisionError()) == 0
        assert stream.send(7) == 7
        assert not (folder / "ended").exists()
    assert (folder / "ended").exists()
    for _ in pool.stream(mean, folder / "left"):
        break
    until_sync((folder / "left").exists)  # whenever it is collected


def test_a_call_that_is_cancelled(pool: wool.SyncPool, folder: Path) -> None:
    future = pool.submit(hold_until_cancelled, folder)
    until_sync((folder / "began").exists)
    assert future.cancel()
    until_sync((folder / "ended").exists)


@wool.routine
async def hold_until_cancelled(folder: Path) -> None:
    (folder / "began").touch()
    try:
        await asyncio.sleep(3600)
    finally:
        (folder / "ended").touch()


def test_what_ends_a_program_does_not_end_the_pool(pool: wool.SyncPool) -> None:
    """It is raised by the call, on the thread that waits for it."""

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pool.call(leave)
    assert pool.call(add, 1, 2) == 3


def test_ctrl_c_cancels_the_call(folder: Path) -> None:
    def interrupt() -> None:
        until_sync((folder / "began").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        with wool.SyncPool(1) as pool:
            pool.call(hold_until_cancelled, folder)
    assert (folder / "ended").exists()


def test_a_pool_that_is_not_open() -> None:
    pool = wool.SyncPool(1, transport="memory")
    for _ in range(2):
        with pytest.raises(wool.WorkerStopped):
            pool.call(add, 1, 2)
        with pytest.raises(wool.WorkerStopped):
            next(pool.stream(count, 3))
        with pool:
            assert pool.call(add, 1, 2) == 3
            with pytest.raises(wool.WoolError, match="open already"):
                pool.__enter__()
            left = pool.stream(count, 3)
            next(left)
        left.close()  # says nothing
    with pytest.raises(wool.NoWorkersAvailable, match="no such model"):
        wool.SyncPool(1, transport="memory", lifespan=lambda: raises()).__enter__()
