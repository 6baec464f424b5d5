"""A real job on real input: which names does the standard library use most?

Every module is tokenized on one worker, then on all of them; results come back as they finish.
"""

import argparse
import asyncio
import keyword
import os
import sys
import sysconfig
import time
import tokenize
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import wool

T = TypeVar("T")

NOT_MODULES = {"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"}


@wool.routine
async def count_names(path: str) -> Counter[str]:
    """Counts the identifiers in one file. It blocks, which in a worker disturbs nobody."""
    with open(path, "rb") as file:
        return Counter(
            token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        )


def modules() -> list[Path]:
    """Returns the source files of the standard library, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if path.is_file())
    return sorted(p for p in paths if NOT_MODULES.isdisjoint(p.relative_to(root).parts))


def progress(results: AsyncIterator[T], total: int, label: str) -> AsyncIterator[T]:
    """Shows how many results have arrived, with tqdm if it is installed."""
    try:
        from tqdm.asyncio import tqdm
    except ImportError:
        return bar(results, total, label)
    return tqdm(results, total=total, desc=label, unit=" modules")


async def bar(results: AsyncIterator[T], total: int, label: str) -> AsyncIterator[T]:
    """Stands in for tqdm: a line on stderr that grows."""
    done = 0
    async for result in results:
        done += 1
        filled = 40 * done // total
        line = f"\r{label}: [{'#' * filled}{' ' * (40 - filled)}] {done}/{total}"
        print(line, end="", file=sys.stderr, flush=True)
        yield result
    print(file=sys.stderr)


def plural(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"


async def count_all(paths: list[str], workers: int) -> tuple[Counter[str], float]:
    """Counts the names in all files, and the seconds that takes once the workers are up."""
    names: Counter[str] = Counter()
    async with wool.WorkerPool(size=workers):
        started = time.perf_counter()
        results = wool.map(count_names, paths, ordered=False)
        async for counted in progress(results, len(paths), plural(workers)):
            names.update(counted)
        return names, time.perf_counter() - started


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="take only so many modules")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    found = modules()[: options.limit]
    lines = sum(path.read_bytes().count(b"\n") for path in found)  # and the cache is warm now
    print(f"Tokenizing {len(found)} modules of the standard library, {lines:,} lines", flush=True)

    paths = [str(path) for path in found]
    names, alone = await count_all(paths, 1)
    again, together = await count_all(paths, options.workers)
    if names != again:
        sys.exit("The two runs do not agree")

    print("\nMost frequent names:")
    for name, count in names.most_common(10):
        print(f"{count:8,}  {name}")
    print(f"\n{plural(1)}: {alone:.2f} s   {plural(options.workers)}: {together:.2f} s", end="   ")
    print(f"{alone / together:.2f} times as fast")


asyncio.run(main())
