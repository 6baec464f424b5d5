"""Items per second of a stream, by how far its worker may run ahead, and by their size.

    python tests/benchmarks/prefetch.py --transport unix --transport grpc

Each figure is the best of several runs: others share the machine. See docs/guides/streams.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable

import wool

AHEAD = (0, 1, 16, 64)
SIZES = {"number": 0, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
RUNS = 5

Routine = Callable[[int, int], AsyncIterator[object]]


async def items(count: int, size: int) -> AsyncIterator[object]:
    """Yields numbers, or bytes of a size."""
    for i in range(count):
        yield bytes(size) if size else i


ROUTINES: dict[int, Routine] = {n: wool.routine(prefetch=n)(items) for n in AHEAD}


async def rate(routine: Routine, count: int, size: int) -> float:
    """Returns the items that arrive per second."""
    began = time.perf_counter()
    async for _ in routine(count, size):
        pass
    return count / (time.perf_counter() - began)


async def measure(transport: str) -> None:
    for name, size in SIZES.items():
        cells: list[str] = []
        for ahead in AHEAD:
            count = 200 if size > 1 << 16 else 1000 if size or not ahead else 5000
            async with wool.WorkerPool(size=1, transport=transport):
                await rate(ROUTINES[ahead], 50, size)
                rates = [await rate(ROUTINES[ahead], count, size) for _ in range(RUNS)]
            cells.append(f"{max(rates):10,.0f}")
        print(f"{transport:8}{name:10}{''.join(cells)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", action="append")
    options = parser.parse_args()
    print(" " * 18 + "".join(f"{f'ahead {n}':>10}" for n in AHEAD))
    for transport in options.transport or ["unix"]:
        asyncio.run(measure(transport))


if __name__ == "__main__":
    main()
