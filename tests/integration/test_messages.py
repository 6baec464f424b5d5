"""Bad input gets a clear error: the right class, and a text that names the thing and the remedy.

`pytest -rP` on this file shows all the messages.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add
from support.pools import ASIDE_AND_WITHIN, opened

pytestmark = pytest.mark.timeout(60)

both = pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)


def check(error: BaseException, *words: str) -> None:
    """Each of the words, `a|b` for either, is in the message."""
    text = str(error)
    print(f"{type(error).__name__}: {text}\n")
    for word in words:
        assert re.search(word, text, re.IGNORECASE), f"{word!r} is not in: {text}"


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
    environment = {**os.environ, "WOOL_RUN_LOCALLY": "false"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=50
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "NoWorkersAvailable" in last and "`run_locally` is off" in last


def test_a_pool_that_is_not_entered_as_it_has_to_be() -> None:
    with pytest.raises(TypeError) as caught, wool.WorkerPool(size=1):
        pass
    check(caught.value, "async with wool.WorkerPool")


@pytest.mark.parametrize(
    ("name", "meant"), [("max_workers", "size"), ("discovry", "discovery"), ("x", "size, idle")]
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
