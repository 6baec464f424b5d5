"""Several loops and several pools in one process, one after another and in threads."""

import asyncio
import contextlib
import sys
import threading

import wool


@wool.routine
async def add(x, y):
    return x + y


@wool.routine
async def count(n):
    for i in range(n):
        yield i


def pool(size=1):
    if sys.argv[1] == "local":
        return contextlib.nullcontext()
    return wool.WorkerPool(size=size, transport=sys.argv[1])


async def work(n):
    return await add(n, 1), [i async for i in count(n)]


async def own_pool(n):
    async with pool():
        return await work(n)


async def no_pool(n):
    return await work(n)


async def two_in_turn(n):
    async with pool():
        first = await work(n)
    between = await work(n)
    async with pool():
        return first == between == await work(n)


async def one_within_the_other(n):
    async with pool():
        async with pool():
            inner = await work(n)
        return inner == await work(n)


def in_thread(function, *args):
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(function(*args))))
    thread.start()
    thread.join()
    return results[0]


async def from_threads(n):
    """A pool opened here, used from the loops of other threads."""
    async with pool(2):
        return await asyncio.gather(
            *(asyncio.to_thread(in_thread, work, n) for n in range(n)), work(n)
        )


results = [
    asyncio.run(no_pool(2)),
    asyncio.run(own_pool(2)),
    in_thread(own_pool, 2),
    asyncio.run(own_pool(2)),
    asyncio.run(two_in_turn(2)),
    asyncio.run(one_within_the_other(2)),
    asyncio.run(from_threads(3)),
]
assert results[:4] == [(3, [0, 1])] * 4, results
assert results[4:6] == [True, True], results
assert results[6] == [(n + 1, list(range(n))) for n in range(4)], results
print("same", len(results))
