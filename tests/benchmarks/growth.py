"""How cost grows: with workers, calls, streams, callers, bytes, context variables and modules.

    python tests/benchmarks/growth.py                 # all curves: some minutes
    python tests/benchmarks/growth.py callers workers # some of them
    python tests/benchmarks/growth.py --svg docs/_static/growth.svg

Each point is a new process with a pool of its own, of two workers where the curve is about
something else.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import charts

import wool

SECONDS = 2.0
"""How long a rate is measured."""


@wool.routine
async def add(a: int, b: int) -> int:
    return a + b


@wool.routine
async def size(data: bytes) -> int:
    return len(data)


@wool.routine
async def apply(function: Callable[[int], int]) -> int:
    return function(1)


@wool.routine
async def numbers() -> AsyncGenerator[int, None]:
    for n in itertools.count():
        yield n


async def rate(flight: int) -> float:
    """Returns calls per second with so many under way."""
    await asyncio.gather(*(add(1, 2) for _ in range(100)))
    done, start = 0, time.perf_counter()

    async def lane() -> None:
        nonlocal done
        while True:
            await add(1, 2)
            done += 1
            if time.perf_counter() > start + SECONDS:
                return

    await asyncio.gather(*(lane() for _ in range(flight)))
    return done / (time.perf_counter() - start)


async def each(call: Callable[[], Awaitable[object]]) -> float:
    """Returns the µs of a call, one after another."""
    await call()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS or count < 3:
        await call()
        count += 1
    return spent / count * 1e6


# The curves: each takes a number, and returns a figure


async def workers(count: int) -> float:
    async with wool.WorkerPool(size=count):
        return await rate(256)


async def flight(count: int) -> float:
    async with wool.WorkerPool(size=2):
        return await rate(count)


async def streams(count: int) -> float:
    async with wool.WorkerPool(size=2), AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(aclosing(numbers())) for _ in range(count)]
        await asyncio.gather(*(anext(stream) for stream in opened))
        turn = itertools.cycle(opened)
        return await each(lambda: anext(next(turn)))


async def callers(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WOOL_SHM__DIRECTORY"] = folder  # nobody else's workers
        async with wool.WorkerPool(size=2, discovery="shm"):
            start = partial(asyncio.create_subprocess_exec, sys.executable, __file__, "--call")
            pipe = subprocess.PIPE
            processes = [await start(stdin=pipe, stdout=pipe) for _ in range(count)]
            for process in processes:  # all are connected before one begins
                assert process.stdout is not None
                await process.stdout.readline()
            told = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
            return sum(float(out) for out, _ in told)


async def call() -> None:
    """The part of each of many callers."""
    async with wool.WorkerPool(discovery="shm"):
        await add(1, 2)
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await rate(8))


async def arguments(count: int) -> float:
    data = bytes(count)
    async with wool.WorkerPool(size=2):
        return await each(lambda: size(data))


async def variables(count: int) -> float:
    for n in range(count):
        globals()[f"VARIABLE_{n}"] = variable = ContextVar[int](f"variable_{n}")
        variable.set(n)
    async with wool.WorkerPool(size=2):
        return await each(lambda: add(1, 2))


async def modules(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for n in range(count):  # each is imported by another, so all by the first
            imports = "\n".join(f"import m{i}" for i in (2 * n + 1, 2 * n + 2) if i < count)
            Path(folder, f"m{n}.py").write_text(f"{imports}\ndef f(x):\n    return x + {n}\n")
        sys.path.insert(0, folder)
        first = importlib.import_module("m0")
        address = f"unix://{folder}/sockets/worker"
        command = [sys.executable, "-m", "wool.cli", "worker", "--address", address]
        worker = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL)
        try:
            async with wool.WorkerPool(discovery=[address]):
                await add(1, 2)
                start = time.perf_counter()
                await apply(first.f)
                return (time.perf_counter() - start) * 1e3
        finally:
            worker.terminate()
            worker.wait()


@dataclass(frozen=True)
class Curve:
    """One thing that grows.

    Attributes:
        at: the points on the way, and the one where it ends.
        told: what the figure is.
    """

    measure: Callable[[int], Coroutine[Any, Any, float]]
    at: tuple[int, ...]
    told: str


CURVES = {
    "workers": Curve(workers, (1, 2, 4, 8, 16, 32, 64), "calls/s, 256 under way"),
    "calls under way": Curve(flight, (1, 4, 16, 64, 256, 1000, 10_000), "calls/s"),
    "open streams": Curve(streams, (1, 10, 100, 1000, 10_000), "µs for a step"),
    "callers": Curve(callers, (1, 3, 10, 30, 100), "calls/s of all"),
    "bytes of an argument": Curve(arguments, tuple(10**n for n in range(1, 10)), "µs for a call"),
    "context variables": Curve(variables, (1, 10, 100, 1000), "µs for a call"),
    "modules that travel": Curve(modules, (1, 10, 100, 1000), "ms for the first call"),
}


def run(name: str, at: int) -> float:
    """Measures a point in a process of its own."""
    command = [sys.executable, __file__, name, "--at", str(at)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {at} cannot be measured:\n{done.stderr}")
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="How cost grows")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CURVES))
    parser.add_argument("--svg", type=Path, help="draw the curves into this file")
    parser.add_argument("--at", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--call", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.call:
        return asyncio.run(call())
    names = given.names or list(CURVES)
    if given.at:
        return print(asyncio.run(CURVES[names[0]].measure(given.at)))
    drawn: list[str] = []
    for name in names:
        curve = CURVES[name]
        line = [(at, run(name, at)) for at in curve.at]
        print(f"{name}, {curve.told}:", *(f"{at:,}: {figure:,.0f};" for at, figure in line))
        drawn.append(charts.growth(line, name, curve.told))
    if given.svg:
        given.svg.write_text(charts.stacked(drawn))
    return None


if __name__ == "__main__":
    main()
