"""Bad input gets a clear error: the right class, and a text that names the thing and the remedy.

`pytest -rP` on this file shows all the messages.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, stay
from support.pools import ASIDE_AND_WITHIN, opened, pids
from support.processes import alive
from support.waiting import pid_in, until_sync
from wool._pool import supervisor
from wool._pool.pool import OwnedPool

pytestmark = pytest.mark.timeout(60)

both = pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)


def check(error: BaseException, *words: str) -> None:
    """Each of the words, `a|b` for either, is in the message."""
    text = str(error)
    print(f"{type(error).__name__}: {text}\n")
    for word in words:
        assert re.search(word, text, re.IGNORECASE), f"{word!r} is not in: {text}"


async def take(connection: Any, *others: Any, **options: Any) -> None:
    pass


async def give() -> Any:
    return threading.Lock()


async def give_in_steps():
    yield threading.Lock()


take_remotely = wool.routine(take)
give_remotely = wool.routine(give)
give_in_steps_remotely = wool.routine(give_in_steps)


def test_sync_function() -> None:
    def compute(x: int) -> int:
        return x

    with pytest.raises(TypeError) as caught:
        wool.routine(compute)  # type: ignore[arg-type]
    check(caught.value, "compute", "async def", r"asyncio\.to_thread")


def test_sync_generator_and_class() -> None:
    def numbers():
        yield 1

    class Thing:
        pass

    with pytest.raises(TypeError) as caught:
        wool.routine(numbers)  # type: ignore[arg-type]
    check(caught.value, "numbers", "async")
    with pytest.raises(TypeError) as caught:
        wool.routine(Thing)  # type: ignore[arg-type]
    check(caught.value, "Thing", "async")


def test_wrong_arguments() -> None:
    """At the call, not at the await."""
    with pytest.raises(TypeError) as caught:
        add(1, 2, 3)  # type: ignore[call-arg]
    check(caught.value, "argument")


@both
async def test_unpicklable_argument(transport: str) -> None:
    async with opened(1, transport=transport):
        with pytest.raises(wool.SerializationError) as caught:
            await take_remotely(threading.Lock())
        check(caught.value, "'connection'", r"\btake\b", "lock")
        assert caught.value.__cause__ is not None
        with pytest.raises(wool.SerializationError) as caught:
            await take_remotely(1, verbose=threading.Lock())
        check(caught.value, "'verbose'", r"\btake\b")
        with pytest.raises(wool.SerializationError) as caught:
            await take_remotely(1, 2, threading.Lock())
        check(caught.value, "others", r"\btake\b")


@both
async def test_unpicklable_closure(transport: str) -> None:
    lock = threading.Lock()

    @wool.routine
    async def enter() -> None:
        with lock:
            pass

    async with opened(1, transport=transport):
        with pytest.raises(wool.SerializationError) as caught:
            await enter()
        check(caught.value, r"\benter\b", r"\block\b")


@both
async def test_unpicklable_result(transport: str) -> None:
    async with opened(1, transport=transport):
        with pytest.raises(wool.SerializationError) as caught:
            await give_remotely()
        check(caught.value, "result|return", r"\bgive\b", "lock")
        with pytest.raises(wool.SerializationError) as caught:
            await anext(give_in_steps_remotely())
        check(caught.value, "yield|value|result", r"\bgive_in_steps\b", "lock")


@both
async def test_coroutine_as_an_argument(transport: str) -> None:
    """A plain coroutine, task or future: says what to do instead."""
    async with opened(1, transport=transport):
        plain = give()
        try:
            with pytest.raises(wool.SerializationError) as caught:
                await take_remotely(plain)
        finally:
            plain.close()
        check(caught.value, "'connection'", "coroutine")
        task = asyncio.create_task(asyncio.sleep(0))
        with pytest.raises(wool.SerializationError) as caught:
            await take_remotely(task)
        check(caught.value, "'connection'", "task")
        await task


@both
async def test_pool_of_the_context_has_closed(transport: str) -> None:
    async with opened(1, transport=transport):
        context = contextvars.copy_context()
        stream = numbers(3)
        assert await anext(stream) == 0
    with pytest.raises(wool.WorkerStopped) as caught:
        await asyncio.create_task(add(1, 2), context=context)
    check(caught.value, "pool", "closed")
    with pytest.raises(wool.WorkerStopped) as caught:
        await anext(stream)
    check(caught.value, "pool|worker", "closed|stopped")
    await stream.aclose()
    assert await add(1, 2) == 3  # none open, none in this context: runs here


@wool.routine
async def numbers(n: int):
    for i in range(n):
        yield i


async def test_several_pools_and_none_in_the_context() -> None:
    ready = asyncio.Semaphore(0)
    leave = asyncio.Event()
    pools: list[wool.WorkerPool] = []

    async def own() -> None:
        async with opened(1, transport="memory") as pool:
            pools.append(pool)
            ready.release()
            await leave.wait()

    owners = [asyncio.create_task(own()) for _ in range(2)]
    try:
        for _ in owners:
            await ready.acquire()
        with pytest.raises(wool.WoolError) as caught:
            await add(1, 2)
        check(caught.value, "pool", r"use\(\)")
        with pytest.raises(wool.WoolError) as caught:
            await asyncio.to_thread(lambda: asyncio.run(add_here()))
        check(caught.value, r"use\(\)")
        with pools[0].use():
            assert await add(1, 2) == 3
            assert await asyncio.to_thread(lambda: asyncio.run(add_here())) == 3
    finally:
        leave.set()
        await asyncio.gather(*owners)


async def add_here() -> int:
    return await add(1, 2)


async def configured(**options: Any) -> pytest.ExceptionInfo[wool.ConfigurationError]:
    with pytest.raises(wool.ConfigurationError) as caught:
        async with wool.WorkerPool(**options):
            pytest.fail("the pool opened")
    return caught


async def test_unknown_transport() -> None:
    caught = await configured(size=1, transport="unx")
    check(caught.value, "transport", "'unx'", r"\bunix\b", r"\bmemory\b")


async def test_unknown_serializer() -> None:
    caught = await configured(size=1, serializer="cloudpickel")
    check(caught.value, "serializer", "'cloudpickel'", r"\bcloudpickle\b")


async def test_transport_that_is_not_installed() -> None:
    if importlib.util.find_spec("wool_grpc"):
        pytest.skip("wool-grpc is installed")
    with pytest.raises(wool.PluginError) as caught:
        async with wool.WorkerPool(size=1, transport="grpc"):
            pytest.fail("the pool opened")
    check(caught.value, "grpc", r'pip install "?wool-core\[grpc\]')


async def test_size_zero_without_discovery() -> None:
    caught = await configured(size=0)
    check(caught.value, "size", "discovery")


@pytest.mark.parametrize("size", [-1, -100])
async def test_negative_size(size: int) -> None:
    caught = await configured(size=size)
    check(caught.value, "size", str(size))


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_bad_concurrency(concurrency: int) -> None:
    caught = await configured(size=1, concurrency=concurrency)
    check(caught.value, "concurrency", str(concurrency))


async def test_module_that_fails_to_import_on_the_worker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the module, and the reason is not lost."""
    (folder / "failing_import.py").write_text(
        "import os, wool\n"
        "if os.getpid() != int(os.environ['SAFE_PID']):\n"
        "    raise ValueError('only at home')\n"
        "@wool.routine\n"
        "async def never():\n"
        "    return 1\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("SAFE_PID", str(os.getpid()))
    import failing_import  # type: ignore[import-not-found]

    try:
        async with opened(1):
            with pytest.raises(wool.WoolError) as caught:
                await failing_import.never()
            check(caught.value, "failing_import", "only at home")
            assert await add(1, 2) == 3
    finally:
        del sys.modules["failing_import"]


async def test_killed_worker(folder: Path) -> None:
    @wool.routine
    async def suicide() -> None:
        os.kill(os.getpid(), 9)
        await asyncio.sleep(3600)

    async with opened(1):
        with pytest.raises(wool.WorkerLost) as caught:
            await suicide()
        check(caught.value, "SIGKILL|signal 9", "suicide|worker", str(caught.value.pid))


async def test_killed_worker_while_the_loop_is_blocked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is known by the time that nobody waits for it any more."""

    async def explain_loss(pool: OwnedPool, *args: Any) -> wool.WorkerLost:
        explaining = asyncio.ensure_future(explain(pool, *args))
        await asyncio.sleep(0)
        until_sync(lambda: not alive(victim))
        time.sleep(0.1)
        return await explaining

    explain = OwnedPool.explain_loss
    monkeypatch.setattr(OwnedPool, "explain_loss", explain_loss)
    monkeypatch.setattr(supervisor, "EXIT_KNOWN_WITHIN", 0.05)
    async with opened(1) as pool:
        (victim,) = pids(pool)
        call = asyncio.create_task(stay(folder / "began"))
        await pid_in(folder / "began")
        [link] = pool._pool.client().links.values()
        await link.session.connection.aclose()
        os.kill(victim, 9)
        with pytest.raises(wool.WorkerLost) as caught:
            await call
        assert caught.value.signal == 9


@wool.routine(tags=["gpu"])
async def on_a_gpu() -> None: ...


@wool.routine
async def asks_for_a_gpu() -> None:
    await on_a_gpu()


@both
async def test_tags_that_no_worker_will_ever_have(transport: str) -> None:
    """Nothing is waited for."""
    async with opened(1, transport=transport, quorum_timeout=3600):
        for call in on_a_gpu, asks_for_a_gpu:
            with pytest.raises(wool.NoWorkersAvailable) as caught:
                await call()
            check(caught.value, "gpu", "on_a_gpu", r"tags=", "discovery")


@wool.routine(local=False)
async def elsewhere(n: int) -> int:
    return n


@wool.routine(local=False)
async def streamed_elsewhere() -> Any:
    yield 1


async def test_a_routine_that_must_not_run_here() -> None:
    """As where a pool was entered in one task and left in another, which nobody notices else."""
    pool = wool.WorkerPool(size=1)
    await asyncio.create_task(pool.__aenter__())
    assert await elsewhere(3) == 3
    assert [n async for n in streamed_elsewhere()] == [1]
    await asyncio.create_task(pool.__aexit__(None, None, None))
    for call in elsewhere(3), anext(streamed_elsewhere()):
        with pytest.raises(wool.NoWorkersAvailable) as caught:
            await call
        check(caught.value, "no pool is open", "local=False", "WorkerPool")


def test_the_setting_that_no_routine_runs_here(tmp_path: Path) -> None:
    program = (
        "import asyncio, wool\n"
        "@wool.routine\nasync def f(): return 1\n"
        "async def main():\n"
        "    async with wool.WorkerPool(size=1): assert await f() == 1\n"
        "    await f()\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, "WOOL_LOCAL": "false"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=50
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "NoWorkersAvailable" in last and "`local` is off" in last


def test_a_pool_that_is_not_entered_as_it_has_to_be() -> None:
    with pytest.raises(TypeError) as caught, wool.WorkerPool(size=1):
        pass
    check(caught.value, "async with wool.WorkerPool")


@pytest.mark.parametrize(
    ("name", "meant"), [("max_workers", "size"), ("discovry", "discovery"), ("x", "size, tags")]
)
def test_an_argument_that_there_is_not(name: str, meant: str) -> None:
    with pytest.raises(TypeError) as caught:
        wool.WorkerPool(**{name: 4})  # type: ignore[arg-type]
    check(caught.value, name, meant)


def test_too_few_files(tmp_path: Path) -> None:
    program = (
        "import asyncio, resource, wool\n"
        "async def main():\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\n"
        "    async with wool.WorkerPool(size=4): pass\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "NoWorkersAvailable" in last and "ulimit -n" in last


@wool.routine
async def debugged() -> None:
    breakpoint()


async def test_a_breakpoint_in_a_process() -> None:
    async with opened(1):
        with pytest.raises(RuntimeError) as caught:
            await debugged()
        check(caught.value, r"transport='memory'")
