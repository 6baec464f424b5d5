"""anyio on asyncio: task groups, cancel scopes, streams between tasks."""

import math
from collections.abc import AsyncGenerator

import anyio
from anyio.streams.memory import MemoryObjectSendStream

import wool


@wool.routine
async def root(n: int) -> float:
    return math.sqrt(n)


@wool.routine
async def ticks(name: str) -> AsyncGenerator[int]:
    number = 0
    try:
        while True:
            yield (number := number + 1)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            print(f"{name} has tidied up", flush=True)


async def send_root(n: int, results: MemoryObjectSendStream[float]) -> None:
    async with results:
        await results.send(await root(n))


async def wait_for(limit: int) -> None:
    async for number in ticks("the group's"):
        if number == limit:
            raise ValueError(f"{limit} ticks are enough")


async def main() -> None:
    async with wool.WorkerPool(size=2):
        sender, receiver = anyio.create_memory_object_stream[float]()
        async with anyio.create_task_group() as group, receiver:
            for n in (1, 4, 9):
                group.start_soon(send_root, n, sender.clone())
            sender.close()
            print(sorted([value async for value in receiver]))

        # The scope ends when the clean-up on the worker has run.
        with anyio.CancelScope() as scope:
            async for number in ticks("the scope's"):
                if number == 3:
                    scope.cancel()
        print("cancelled:", scope.cancelled_caught, flush=True)

        # A task that fails cancels the others, wherever they run.
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(wait_for, 3)
                group.start_soon(anyio.sleep_forever)
        except* ValueError as errors:
            print(*errors.exceptions)


anyio.run(main)
