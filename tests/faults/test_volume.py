"""Many calls, many streams, large values."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

import wool
from support.jobs import add, count, fib
from support.pools import all_serve, opened, pids

pytestmark = pytest.mark.timeout(120)

SIZE = 300 << 20


@wool.routine
async def checksum(blob: Any) -> tuple[int, int]:
    view = memoryview(blob).cast("B")
    return view.nbytes, zlib.crc32(view)


@wool.routine
async def produce(kind: str, size: int) -> Any:
    return blob(kind, size)


active = 0
highest = 0


@wool.routine
async def crowded(seconds: float) -> int:
    """How many of these have been running here at once, so far."""
    global active, highest
    active += 1
    highest = max(active, highest)
    try:
        await asyncio.sleep(seconds)
    finally:
        active -= 1
    return highest


def blob(kind: str, size: int) -> Any:
    if kind == "bytes":
        return b"\x5a\xa5" * (size // 2)
    numpy = pytest.importorskip("numpy")
    return numpy.arange(size // 8, dtype="int64")


async def calls_beside(large: asyncio.Task[Any]) -> int:
    """Makes small calls one by one until `large` is done; how many were done before."""
    done = 0
    while not large.done():
        assert await add(1, 2) == 3
        done += not large.done()
    return done


@pytest.mark.everywhere
@pytest.mark.parametrize("concurrency", [None, 1])
async def test_many_streams_open_at_once(concurrency: int | None) -> None:
    """2,000 streams held open on two workers, stepping in turn; a limit never deadlocks them."""
    async with opened(2, concurrency=concurrency) as pool:
        streams = [count(1000) for _ in range(2000)]
        async with asyncio.timeout(60):
            for turn in range(3):
                steps = await asyncio.gather(*(anext(stream) for stream in streams))
                assert steps == [turn] * 2000
            assert await add(1, 2) == 3
            await asyncio.gather(*(stream.aclose() for stream in streams))
            await all_serve(pool)


@pytest.mark.slow
async def test_fib_16_on_two_workers() -> None:
    """3,193 nested calls, up to a thousand of them waiting for others: no gate is exhausted."""
    async with opened(), asyncio.timeout(90):
        assert await fib(16) == 987


@pytest.mark.parametrize("size", [1, 2])
async def test_fib_12_with_one_call_at_a_time(size: int) -> None:
    """`concurrency=1` limits load; nesting alone never deadlocks."""
    async with opened(size, concurrency=1), asyncio.timeout(60):
        assert await fib(12) == 144


async def test_many_calls_at_once() -> None:
    """20,000 calls in one `gather`."""
    async with opened(), asyncio.timeout(60):
        assert await asyncio.gather(*(add(i, 1) for i in range(20_000))) == list(range(1, 20_001))


@pytest.mark.parametrize("limit", [1, 3])
async def test_concurrency_is_kept(limit: int) -> None:
    """One worker begins at most that many; the rest waits and does not fail."""
    async with opened(1, concurrency=limit):
        assert await fib(6) == 8  # a call that has waited for another one takes a slot again
        counts = await asyncio.gather(*(crowded(0.01) for _ in range(60)))
        assert max(counts) == limit


@pytest.mark.everywhere
async def test_large_argument_on_every_transport() -> None:
    """300 MB to the only worker: small calls to it complete meanwhile, and the worker stays."""
    value = blob("bytes", SIZE)
    async with opened(1) as pool:
        before = pids(pool)
        assert await add(1, 2) == 3
        large = asyncio.ensure_future(checksum(value))
        beside = await calls_beside(large)
        assert await large == (SIZE, zlib.crc32(value))
        assert beside >= 5, "no small call completed during the transfer"
        assert pids(pool) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "numpy"])
async def test_large_result_while_small_calls_flow(kind: str) -> None:
    """The same the other way round."""
    async with opened(1) as pool:
        before = pids(pool)
        assert await add(1, 2) == 3
        large = asyncio.ensure_future(produce(kind, SIZE))
        beside = await calls_beside(large)
        value = await large
        expected = blob(kind, SIZE)
        assert bool((value == expected).all()) if kind == "numpy" else value == expected
        assert beside >= 5, "no small call completed during the transfer"
        assert pids(pool) == before
