"""What context variables cost: calls one after another, with none set, some, and a large one.

    python tests/benchmarks/context.py --transport unix

Prints the median time of a call.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import wool

VARIABLES: list[ContextVar[Any]] = [ContextVar(f"v{n}") for n in range(10)]
for number, variable in enumerate(VARIABLES):
    globals()[f"v{number}"] = variable


@wool.routine
async def nothing() -> None:
    pass


@wool.routine
async def setting(n: int) -> None:
    VARIABLES[0].set(n)


async def timed(make: Callable[[], Awaitable[Any]], count: int) -> float:
    """Returns the median of the microseconds that a call takes."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await make()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def measure(transport: str, count: int) -> None:
    async with wool.WorkerPool(size=1, transport=transport):
        await timed(nothing, count)

        async def row(name: str, make: Callable[[], Awaitable[Any]] = nothing) -> None:
            took = await asyncio.create_task(timed(make, count))
            print(f"{name:40} {took:7.1f} µs", flush=True)

        await row("no variable set")
        await row("one that the routine sets", lambda: setting(1))
        VARIABLES[0].set("a string")
        await row("one string")
        for each in VARIABLES:
            each.set("a string")
        await row("ten strings")
        for each in VARIABLES:
            each.set(["a list"])
        await row("ten lists")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", default="unix")
    parser.add_argument("--count", type=int, default=3000)
    options = parser.parse_args()
    asyncio.run(measure(options.transport, options.count))


if __name__ == "__main__":
    main()
