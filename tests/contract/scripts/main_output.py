"""Output of routines is not lost, nor is it printed twice."""

import asyncio
import contextlib
import sys

import wool


@wool.routine
async def say(n):
    print("routine", n)


@wool.routine
async def count(n):
    for i in range(n):
        print("generator", i)
        yield i


async def main():
    place = sys.argv[1]
    async with (
        contextlib.nullcontext() if place == "local" else wool.WorkerPool(size=2, transport=place)
    ):
        await asyncio.gather(*(say(n) for n in range(4)))
        async for _ in count(2):
            pass
    print("same", 6)


asyncio.run(main())
