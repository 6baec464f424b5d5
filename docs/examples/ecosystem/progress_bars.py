"""Progress bars over results as they come: tqdm.asyncio and rich.progress."""

import asyncio

from rich.progress import Progress
from tqdm.asyncio import tqdm

import wool


@wool.routine
async def double(n: int) -> int:
    return 2 * n


async def main() -> None:
    numbers = range(100)
    async with wool.WorkerPool(size=2):
        results = wool.map(double, numbers, ordered=False)
        print(sum([n async for n in tqdm(results, total=len(numbers))]))

        # tqdm's own `gather` does as well: calls of routines are coroutines.
        doubled: list[int] = await tqdm.gather(*(double(n) for n in numbers))
        print(sum(doubled))

        with Progress() as progress:
            task = progress.add_task("Doubling", total=len(numbers))
            total = 0
            async for n in wool.map(double, numbers, ordered=False):
                total += n
                progress.advance(task)
        print(total)


asyncio.run(main())
