"""The lifespan that a worker enters before it is called and leaves at last; and calls to all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, hold, pid
from support.pools import ASIDE_AND_WITHIN, TRANSPORTS, opened, pids
from support.processes import Script
from support.waiting import pid_in, until

entered = 0


def note(book: Path, word: str) -> None:
    with book.open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def noted(book: Path) -> list[str]:
    return [line.partition(" ")[0] for line in book.read_text().split("\n") if line]


@asynccontextmanager
async def resources(book: Path, late: bool = False) -> AsyncGenerator[dict[str, Any]]:
    global entered
    async with asyncio.TaskGroup():  # is left in the task that has entered it
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        entered += 1
        note(book, "entered")
        try:
            yield {"loop": loop, "thread": threading.get_ident()}
        finally:
            note(book, "leaving")
            await asyncio.sleep(0)
            note(book, "left")
    if late:
        raise LookupError("not in good order")


@wool.routine
async def look(book: Path) -> tuple[int, int]:
    worker = wool.current_worker()
    call = wool.current_call()
    assert call is not None
    assert worker.info == call.worker
    assert worker.state["loop"] is asyncio.get_running_loop()
    assert worker.state["thread"] == threading.get_ident()
    assert await asyncio.to_thread(wool.current_worker) == worker
    note(book, "called")
    return os.getpid(), entered


@wool.routine
async def linger(book: Path) -> None:
    note(book, "begun")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        note(book, "ended")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_is_there_before_the_first_call_and_until_the_last(
    transport: str, folder: Path
) -> None:
    book = folder / "book"
    with pytest.raises(KeyboardInterrupt):
        async with opened(1, transport=transport, lifespan=partial(resources, book)):
            assert (await look(book))[1] == 1  # modules share their globals with it
            task = asyncio.create_task(linger(book))
            await until(lambda: "begun" in noted(book))
            raise KeyboardInterrupt  # running calls are cancelled
    assert noted(book) == ["entered", "called", "begun", "ended", "leaving", "left"]
    with pytest.raises(wool.WorkerStopped):
        await task


async def test_a_worker_that_takes_another_ones_place_has_it_too(folder: Path) -> None:
    book = folder / "book"
    async with opened(1, lifespan=partial(resources, book)) as pool:
        for end in (signal.SIGKILL, signal.SIGTERM):
            (first,) = pids(pool)
            os.kill(first, end)
            await until(lambda: pids(pool) - {first}, what="another worker")
            assert (await look(book))[1] == 1
    # The first of three was killed, the second was told to leave.
    assert sorted(noted(book)) == sorted(
        ["entered", "called"] * 2 + ["entered"] + ["leaving", "left"] * 2
    )


@asynccontextmanager
async def linger_for_ever(book: Path) -> AsyncGenerator[None]:
    await linger.__wrapped__(book)  # type: ignore[attr-defined]
    yield


async def nothing_to_enter() -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def raising() -> AsyncGenerator[None]:
    raise LookupError("no such model")
    yield


@asynccontextmanager
async def dying() -> AsyncGenerator[None]:
    os._exit(3)
    yield


def unsendable() -> Callable[[], Any]:
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)
@pytest.mark.parametrize(
    ("lifespan", "cause", "words"),
    [
        (raising, LookupError, "LookupError: no such model"),
        (nothing_to_enter, TypeError, "below @contextlib.asynccontextmanager"),
        (unsendable(), wool.SerializationError, "lock"),
        (dying, wool.WorkerLost, "exited with code 3"),
    ],
    ids=["raises", "is none", "cannot be sent", "dies"],
)
async def test_one_that_fails_fails_the_pool(
    lifespan: Any, cause: type[BaseException], words: str, transport: str
) -> None:
    if transport == "memory" and lifespan is dying:
        pytest.skip("that would be this process")
    named = "lifespan could not be entered on worker"
    with pytest.raises(wool.NoWorkersAvailable, match=named) as e:
        async with wool.WorkerPool(size=1, transport=transport, lifespan=lifespan):
            raise AssertionError
    assert words in str(e.value)
    assert type(e.value.__cause__) is cause
    if lifespan is raising:
        frames = traceback.extract_tb(e.value.__cause__.__traceback__)
        assert frames[-1].name == "raising"  # as the worker saw it


async def test_one_that_takes_long(folder: Path) -> None:
    with pytest.raises(wool.NoWorkersAvailable, match="still being entered on worker"):
        stuck = partial(linger_for_ever, folder / "book")
        await wool.WorkerPool(size=1, quorum_timeout=4, lifespan=stuck).__aenter__()
    assert noted(folder / "book") == ["begun", "ended"]


async def test_one_that_fails_to_end(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told where errors of a worker are told, and keeps nobody."""
    async with opened(1, lifespan=partial(resources, folder / "book", late=True)):
        pass
    told = capfd.readouterr().err
    assert "the lifespan of the worker has failed to end" in told
    assert "LookupError: not in good order" in told


async def test_entering_may_be_cancelled(folder: Path) -> None:
    book = folder / "book"
    pool = wool.WorkerPool(size=1, lifespan=partial(linger_for_ever, book))
    opening = asyncio.create_task(pool.__aenter__())
    await until(lambda: book.exists() and "begun" in noted(book))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert noted(book) == ["begun", "ended"]


CALLER = """
import asyncio, contextlib, pathlib, sys, wool

folder = pathlib.Path(sys.argv[1])

@contextlib.asynccontextmanager
async def resources():
    try:
        yield
    finally:
        (folder / "left").touch()

async def main():
    async with wool.WorkerPool(size=1, lifespan=resources):
        print("open", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_it_is_left_if_the_caller_is_killed(folder: Path) -> None:
    script = Script(CALLER, folder, str(folder))
    try:
        assert await asyncio.to_thread(script.line) == "open"
        script.process.kill()
        await until((folder / "left").exists)
    finally:
        script.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [({"lifespan": "resources"}, "not 'resources'"), ({"lifespan": 3}, "not 3")],
)
def test_it_has_to_be_a_function(given: Any, words: str) -> None:
    for kind in (wool.WorkerPool, wool.Worker):
        with pytest.raises(wool.ConfigurationError, match=words):
            kind(**given)


async def test_a_worker_of_ones_own(folder: Path) -> None:
    book, address = folder / "book", f"unix://{folder}/w"
    async with wool.Worker(address=address, lifespan=partial(resources, book)) as worker:
        async with wool.WorkerPool(discovery=[worker.info.address]):
            await look(book)
    assert noted(book) == ["entered", "called", "leaving", "left"]
    with pytest.raises(LookupError):  # the user's own, as it is
        await wool.Worker(address=address, lifespan=raising).__aenter__()
    (folder / "file").touch()
    with pytest.raises(wool.exceptions.ConnectFailed):  # it cannot listen
        where = f"unix://{folder}/file/w"
        await wool.Worker(address=where, lifespan=partial(resources, book)).__aenter__()
    assert noted(book)[4:] == ["entered", "leaving", "left"]


MODULE = """
import contextlib, pathlib, os

@contextlib.asynccontextmanager
async def resources():
    yield "warm"
    pathlib.Path(os.environ["LEFT"]).touch()

@contextlib.asynccontextmanager
async def broken():
    raise LookupError("no such model")
    yield
"""


@wool.routine
async def state() -> Any:
    return wool.current_worker().state


async def test_the_command(start: Any, folder: Path) -> None:
    (folder / "shop.py").write_text(MODULE)
    place, path = ["--address", f"unix://{folder}/s/w"], os.pathsep.join([*sys.path, str(folder)])
    variables = {"LEFT": str(folder / "left"), "PYTHONPATH": path}
    served = start(*place, "--lifespan", "shop:resources", **variables)
    async with wool.WorkerPool(discovery=[await served.address()]):
        assert await state() == "warm"
        held = asyncio.create_task(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        served.process.send_signal(signal.SIGTERM)
        await served.says("takes no more calls")
        assert not (folder / "left").exists()
        (folder / "go").touch()
        await held
    assert await served.exit() == 0
    assert (folder / "left").exists()
    for lifespan, words in {
        "shop:broken": "LookupError: no such model",
        "shop:brocken": "--lifespan shop:brocken cannot be imported",
        "shop": "give module:name",
    }.items():
        failed = start(*place, "--lifespan", lifespan, **variables)
        assert await failed.exit() == 1
        assert words in "\n".join(failed.lines)


def test_the_state_of_no_worker() -> None:
    with pytest.raises(wool.WoolError, match="no worker runs this code"):
        wool.current_worker()


# Calls to all workers -----------------------------------------------------------------------------


@wool.routine
async def pick(ends: dict[int, str]) -> int:
    """Does what is said for the process that it runs in."""
    match ends.get(os.getpid()):
        case "raise":
            raise LookupError("no such model")
        case "exit":
            os._exit(3)
        case "leave":
            os.kill(os.getpid(), signal.SIGTERM)
    return os.getpid()


class Shop:
    def __init__(self, price: int) -> None:
        self.price = price

    @wool.routine
    async def total(self, count: int) -> tuple[int, int]:
        return self.price * count, os.getpid()


@wool.routine(tags=["gpu"])
async def on_a_gpu() -> int:
    return os.getpid()


@wool.routine
async def ask_all() -> set[int]:
    pool = wool.current_pool()
    assert pool is not None
    return {pid async for _, pid in pool.broadcast(pick, {})}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_worker_is_asked_once(transport: str) -> None:
    async with opened(3, transport=transport) as pool:
        answers = [(worker.id, result) async for worker, result in pool.broadcast(pid)]
        assert {ident for ident, _ in answers} == {worker.id for worker in pool.workers}
        assert len(answers) == 3
        assert sorted(result for _, result in answers) == sorted(w.pid for w in pool.workers)
        assert {r[0] async for _, r in pool.broadcast(Shop(3).total, count=2)} == {6}
        assert await ask_all() == pids(pool)
        assert [answer async for answer in pool.broadcast(on_a_gpu)] == []  # nobody has one


async def test_errors_stand_for_results_and_say_who_has_left() -> None:
    async with opened(4) as pool:
        fine, raises, exits, leaves = sorted(pids(pool))
        ends = {raises: "raise", exits: "exit", leaves: "leave"}
        answers = {worker.pid: result async for worker, result in pool.broadcast(pick, ends)}
    assert answers[fine], answers[leaves] == (fine, leaves)  # it has finished what it had begun
    assert isinstance(answers[raises], LookupError)
    lost = answers[exits]
    assert isinstance(lost, wool.WorkerLost)
    assert (lost.outcome, lost.exitcode, lost.pid) == ("unknown", 3, exits)


async def test_workers_of_which_only_an_address_is_known(folder: Path) -> None:
    """Two are there, two never were."""
    gone = [f"unix://{folder}/gone/{n}" for n in range(2)]
    async with (
        wool.Worker(address=f"unix://{folder}/a") as a,
        wool.Worker(address=f"unix://{folder}/b") as b,
    ):
        there = [a.info.address, b.info.address]
        for known in (gone + there, there + gone):
            async with wool.WorkerPool(discovery=known) as pool:
                answers = {w.address: result async for w, result in pool.broadcast(add, 1, 2)}
            assert [answers[address] for address in there] == [3, 3]
            for address in gone:
                lost = answers[address]
                assert isinstance(lost, wool.WorkerLost)
                assert lost.outcome == "not started"


async def test_leaving_early_cancels_the_others(folder: Path) -> None:
    async with opened(2) as pool:
        answers = pool.broadcast(linger, folder / "book")
        waiting = asyncio.ensure_future(anext(answers))
        await until(lambda: (folder / "book").exists() and noted(folder / "book") == ["begun"] * 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert noted(folder / "book") == ["begun"] * 2 + ["ended"] * 2


async def test_wrong_uses() -> None:
    pool = wool.WorkerPool(size=1)
    with pytest.raises(wool.WorkerStopped):
        await anext(pool.broadcast(add, 1, 2))
    async with pool:
        for arguments in ((1,), (1, 2, 3)):
            with pytest.raises(TypeError):
                await anext(pool.broadcast(add, *arguments))  # type: ignore[call-arg]
