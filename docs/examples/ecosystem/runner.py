"""asyncio.Runner: a pool that stays open between calls of `run`, in a program that is not async."""

import asyncio
from contextlib import AsyncExitStack

import wool


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


def main() -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        runner.run(stack.enter_async_context(wool.WorkerPool(size=1)))
        try:
            for x in range(3):
                print(runner.run(add(x, 10)))
        finally:
            runner.run(stack.aclose())


main()
