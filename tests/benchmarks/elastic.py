"""Has load come and go, and draws how a pool whose size varies follows.

    python tests/benchmarks/elastic.py --svg docs/_static/elastic.svg

Each call waits for 0.2 s on a worker that runs one at a time. Every call is counted by who makes it
and by the worker that runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))

import charts

import wool

MOST, IDLE, SERVICE = 8, 2.0, 0.2
PHASES = ((0, 1), (12, 4), (0, 3), (25, 4), (60, 1), (3, 5), (0, 5))
"""How many calls are made in a second, and for how many seconds."""

Line = list[tuple[float, float]]


@wool.routine
async def work(book: Path) -> None:
    with book.open("ab", buffering=0) as file:
        file.write(b"x")
    await asyncio.sleep(SERVICE)


async def run(book: Path) -> tuple[int, Line, Line]:
    """Returns how many calls were made, and calls that wait and workers over time."""
    begin, made, done = time.perf_counter(), 0, 0
    waiting: Line = []
    workers: Line = []

    async def call() -> None:
        nonlocal done
        await work(book)
        done += 1

    async def watch(pool: wool.WorkerPool) -> None:
        while True:
            begun = book.stat().st_size
            now = time.perf_counter() - begin
            waiting.append((now, float(made - begun)))
            workers.append((now, float(len(pool.workers))))
            await asyncio.sleep(0.05)

    async with wool.WorkerPool(size=(0, MOST), idle=IDLE, concurrency=1) as pool:
        watching = asyncio.create_task(watch(pool))
        async with asyncio.TaskGroup() as group:
            for rate, seconds in PHASES:
                until = time.perf_counter() + seconds
                while time.perf_counter() < until:
                    if not rate:
                        await asyncio.sleep(seconds)
                        break
                    await asyncio.sleep(random.expovariate(rate))
                    group.create_task(call())
                    made += 1
        watching.cancel()
    assert done == made
    return made, waiting, workers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    random.seed(1)
    with TemporaryDirectory() as folder:
        book = Path(folder, "book")
        book.touch()
        made, waiting, workers = asyncio.run(run(book))
        print(f"{made} calls were made, {book.stat().st_size} have run")
    if asked.svg is not None:
        lines = {"calls that wait": waiting, "workers": workers}
        asked.svg.write_text(charts.stacked([charts.over_time(lines, "seconds", "")]))


if __name__ == "__main__":
    main()
