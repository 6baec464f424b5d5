"""aiostream: routines as the functions and the sources of its operators."""

import asyncio
from collections.abc import AsyncGenerator

from aiostream import pipe, stream

import wool


@wool.routine
async def square(n: int) -> int:
    return n * n


@wool.routine
async def letters(word: str) -> AsyncGenerator[str]:
    for letter in word:
        yield letter


async def main() -> None:
    async with wool.WorkerPool(size=2):
        # Up to four calls at once, results in order.
        squares = stream.range(10) | pipe.map(square, task_limit=4) | pipe.filter(even)
        print(await stream.list(squares))

        # Two remote generators, each on a worker, step by step as they are asked.
        print(await stream.list(stream.zip(letters("wool"), letters("yarn"))))
        print(sorted(await stream.list(stream.merge(letters("wool"), letters("yarn")))))

        # An operator that ends early closes its source, also a remote one.
        print(await stream.list(stream.iterate(letters("sheep")) | pipe.take(2)))


def even(n: int) -> bool:
    return n % 2 == 0


asyncio.run(main())
