"""A pool that is left while its routines wait for one another: they clean up, and at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import wool
from support.pools import ASIDE_AND_WITHIN, TRANSPORTS, opened, pids
from support.processes import kill
from support.waiting import until

pytestmark = pytest.mark.timeout(60)

both = pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)
everywhere = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits until the grace of a call is over waits longer than a test may take."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "600")


async def tidy_up(folder: Path, name: str) -> None:
    await asyncio.sleep(0.2)
    (folder / f"{name}.finally").touch()


@wool.routine
async def nest(folder: Path, depth: int) -> None:
    try:
        if depth:
            await nest(folder, depth - 1)
        else:
            (folder / "begun").touch()
            await asyncio.sleep(3600)
    finally:
        await tidy_up(folder, str(depth))


@wool.routine
async def numbers(folder: Path) -> AsyncGenerator[int]:
    try:
        for n in range(1000):
            yield n
    finally:
        await tidy_up(folder, "numbers")


@wool.routine
async def consume(folder: Path, stop: int) -> None:
    """Waits between two steps of a stream, or in the middle of one."""
    try:
        async with aclosing(numbers(folder) if stop else first_of(folder)) as stream:
            async for n in stream:
                if n == stop:
                    (folder / "begun").touch()
                    await asyncio.sleep(3600)
    finally:
        await tidy_up(folder, "consume")


@wool.routine
async def first_of(folder: Path) -> AsyncGenerator[int]:
    try:
        yield 1
        (folder / "begun").touch()
        await asyncio.sleep(3600)
        yield 2
    finally:
        await tidy_up(folder, "numbers")


@wool.routine
async def take(folder: Path, queue: asyncio.Queue[int]) -> None:
    try:
        await queue.put(1)
        await queue.put(2)  # for which there is no place
    finally:
        await tidy_up(folder, "take")


@wool.routine
async def lend(folder: Path) -> None:
    try:
        queue = asyncio.Queue[int](maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(take(folder, queue))
            while not queue.full():
                await asyncio.sleep(0.01)
            (folder / "begun").touch()
            await asyncio.sleep(3600)
    finally:
        await tidy_up(folder, "lend")


Begin = Callable[[Path], Coroutine[Any, Any, None]]


@both
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("begin", "ends"),
    [
        pytest.param(lambda folder: nest(folder, 5), set("012345"), id="calls"),
        pytest.param(lambda folder: consume(folder, 3), {"numbers", "consume"}, id="between-steps"),
        pytest.param(lambda folder: consume(folder, 0), {"numbers", "consume"}, id="in-a-step"),
        pytest.param(lend, {"take", "lend"}, id="queue"),
    ],
)
async def test_what_waits_for_one_another(
    begin: Begin, ends: set[str], size: int, transport: str, folder: Path
) -> None:
    """No clean-up is cut short, and none waits for what has been told to end itself."""
    with pytest.raises(ZeroDivisionError):
        async with opened(size, transport=transport):
            call = asyncio.ensure_future(begin(folder))
            await until((folder / "begun").exists, what="the innermost call to begin")
            raise ZeroDivisionError
    with pytest.raises(wool.WorkerStopped):
        await call
    assert {path.stem for path in folder.glob("*.finally")} == ends


@everywhere
async def test_a_stream_that_is_being_closed(transport: str, folder: Path) -> None:
    """Its clean-up is not cancelled: it has begun already."""
    with pytest.raises(ZeroDivisionError):
        async with opened(1, transport=transport):
            stream = slow_to_close(folder)
            assert await anext(stream) == 1
            closing = asyncio.ensure_future(stream.aclose())
            await until((folder / "closing").exists, what="the clean-up to begin")
            raise ZeroDivisionError
    await closing
    assert (folder / "closed.finally").exists()


class Lent:
    async def method(self, folder: Path) -> None:
        try:
            (folder / "begun").touch()
            await asyncio.sleep(3600)
        finally:
            (folder / "closing").touch()
            await tidy_up(folder, "closed")


@wool.routine
async def lend_both(folder: Path) -> tuple[Lent, AsyncGenerator[int]]:
    return wool.reference(Lent()), slow_to_close.__wrapped__(folder)


@both
@pytest.mark.parametrize("use", ["a call", "a call that is cancelled", "closing a generator"])
async def test_objects_that_workers_have_lent(use: str, transport: str, folder: Path) -> None:
    """A use of them is cancelled, once, and has the time to clean up."""
    with pytest.raises(ZeroDivisionError):
        async with opened(1, transport=transport):
            lent, generator = await lend_both(folder)
            if use == "closing a generator":
                await anext(generator)
                using = asyncio.ensure_future(generator.aclose())
            else:
                using = asyncio.ensure_future(lent.method(folder))
                await until((folder / "begun").exists)
            if use == "a call that is cancelled":
                using.cancel()
            if use != "a call":
                await until((folder / "closing").exists)
            raise ZeroDivisionError
    await asyncio.wait([using])
    assert using.cancelled() or isinstance(using.exception(), wool.WorkerStopped | None)
    assert (folder / "closed.finally").exists()


@wool.routine
async def slow_to_close(folder: Path) -> AsyncGenerator[int]:
    try:
        yield 1
    finally:
        (folder / "closing").touch()
        await tidy_up(folder, "closed")


@wool.routine
async def endless() -> AsyncGenerator[int]:
    n = 0
    while True:
        yield n
        n += 1


@wool.routine(prefetch=8)
async def passed_on(source: AsyncIterator[int]) -> AsyncGenerator[int]:
    async for n in source:
        yield n


@wool.routine
async def fails(source: AsyncIterator[int]) -> AsyncGenerator[int]:
    async for n in source:
        if n == 5:
            raise ValueError(n)
        yield n


@pytest.mark.parametrize("attempt", range(3))
async def test_a_pipeline_that_has_failed(attempt: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Its sources are being closed, each by the next, when all workers are told to stop."""
    async with opened(3):
        with pytest.raises(ValueError, match="5"):
            async for _ in fails(passed_on(endless())):
                pass
    assert capfd.readouterr().err == ""


@everywhere
@pytest.mark.parametrize("killed", [False, True])
def test_a_stream_that_outlives_its_pool(
    killed: bool, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop closes it as it ends, and may cancel that: there is nothing to complain about."""
    if killed and transport == "memory":
        pytest.skip("threads cannot be killed")

    async def main() -> None:
        async with opened(1, transport=transport) as pool:
            stream = endless()
            assert await anext(stream) == 0
            if killed:
                victims = pids(pool)
                kill(victims)
                await until(lambda: not pids(pool) & victims, what="the death to be noticed")

    asyncio.run(main())
    assert caplog.text == ""
