"""Wool beside others that run Python functions in worker processes.

    python tests/benchmarks/compare.py                # those that are installed
    python tests/benchmarks/compare.py wool-unix ray --repeat 5
    python tests/benchmarks/compare.py --quick        # a tenth of the time, and rougher
    python tests/benchmarks/compare.py ray=/path/to/venv/bin/python

Each measurement is a new process that starts two workers. Columns of the table: the seconds from
the start of that process to the first result; the median of calls that add two numbers, one after
another, in µs; how many of them are made in a second if 256 are under way; a megabyte there and
back, in MB/s of both directions together; and numbers of an async generator in a second. Of all
repetitions the table has the median, and the best in brackets. The row `pickles` is no peer: it
sends pickles through a socket and does nothing else, which is what a call costs at least.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import importlib.util
import itertools
import json
import os
import pickle
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

WORKERS = 2
FLIGHT = 256
LONGEST = 0.5 if "--quick" in sys.argv else 5.0
"""Seconds after which a measurement takes what it has."""

Figures = dict[str, float]


def add(a: int, b: int) -> int:
    return a + b


def echo(data: bytes) -> bytes:
    return data


# Who is measured


@dataclass(frozen=True)
class Calls:
    """How somebody has two workers run functions.

    Attributes:
        add, echo: as the functions above.
        numbers: a stream of the first numbers; None if there are no streams.
    """

    add: Callable[[int, int], Awaitable[int]]
    echo: Callable[[bytes], Awaitable[bytes]]
    numbers: Callable[[int], AsyncIterator[int]] | None = None


@asynccontextmanager
async def wool(prefetch: int = 0, **options: Any) -> AsyncIterator[Calls]:
    import wool

    @wool.routine
    async def adding(a: int, b: int) -> int:
        return a + b

    @wool.routine
    async def echoing(data: bytes) -> bytes:
        return data

    @wool.routine(prefetch=prefetch) if prefetch else wool.routine
    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    async with wool.WorkerPool(**options):
        yield Calls(adding, echoing, numbers)


@asynccontextmanager
async def processes() -> AsyncIterator[Calls]:
    run = asyncio.get_running_loop().run_in_executor
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as executor:
        yield Calls(partial(run, executor, add), partial(run, executor, echo))


@asynccontextmanager
async def ray() -> AsyncIterator[Calls]:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")

    @ray.remote
    def counting(n: int) -> Any:
        for i in range(n):  # `yield from range(n)` is too little of a generator for Ray
            yield i

    async def numbers(n: int) -> AsyncIterator[int]:
        async for reference in counting.remote(n):
            yield await reference

    yield Calls(ray.remote(add).remote, ray.remote(echo).remote, numbers)
    ray.shutdown()


@asynccontextmanager
async def dask() -> AsyncIterator[Calls]:
    from distributed import Client, LocalCluster

    local = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, asynchronous=True
    )
    async with local as cluster, Client(cluster, asynchronous=True) as client:

        async def call(function: Callable[..., Any], *args: Any) -> Any:
            return await client.submit(function, *args, pure=False)

        yield Calls(partial(call, add), partial(call, echo))


class Pickles(asyncio.Protocol):
    """One end of a socket for pickles, each behind its length."""

    transport: asyncio.Transport

    def __init__(self, take: Callable[[Any], object]) -> None:
        self._take = take
        self._arrived = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, message: object) -> None:
        data = pickle.dumps(message, 5)
        self.transport.write(len(data).to_bytes(4, "little") + data)

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        while len(self._arrived) >= 4:
            end = 4 + int.from_bytes(self._arrived[:4], "little")
            if len(self._arrived) < end:
                break
            self._take(pickle.loads(memoryview(self._arrived)[4:end]))
            del self._arrived[:end]


@asynccontextmanager
async def pickles() -> AsyncIterator[Calls]:
    loop = asyncio.get_running_loop()
    waiting: dict[int, asyncio.Future[Any]] = {}
    numbered = itertools.count()

    def take(message: tuple[int, Any]) -> None:
        waiting.pop(message[0]).set_result(message[1])

    ends: list[Pickles] = []
    processes: list[subprocess.Popen[bytes]] = []
    for _ in range(WORKERS):
        mine, other = socket.socketpair()
        command = [sys.executable, __file__, "--serve", str(other.fileno())]
        processes.append(subprocess.Popen(command, pass_fds=[other.fileno()]))
        other.close()
        ends.append((await loop.create_connection(lambda: Pickles(take), sock=mine))[1])

    async def call(function: str, *args: object) -> Any:
        number = next(numbered)
        waiting[number] = future = loop.create_future()
        ends[number % WORKERS].send((number, function, args))
        return await future

    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield await call("echo", i)

    yield Calls(partial(call, "add"), partial(call, "echo"), numbers)
    for end, process in zip(ends, processes, strict=True):
        end.transport.close()
        await asyncio.to_thread(process.wait)


async def serve(descriptor: int) -> None:
    """Answers at the other end of `pickles`."""
    over = asyncio.Event()

    def take(message: tuple[int, str, tuple[Any, ...]]) -> None:
        number, function, args = message
        end.send((number, globals()[function](*args)))

    class End(Pickles):
        def connection_lost(self, exc: Exception | None) -> None:
            over.set()

    sock = socket.socket(fileno=descriptor)
    _, end = await asyncio.get_running_loop().create_connection(lambda: End(take), sock=sock)
    await over.wait()


PEERS: dict[str, tuple[str, Callable[[], AbstractAsyncContextManager[Calls]]]] = {
    "wool-unix": ("wool.abc", partial(wool, size=WORKERS, transport="unix")),
    "wool-unix-prefetch": ("wool.abc", partial(wool, 64, size=WORKERS, transport="unix")),
    "wool-ws": ("wool_ws", partial(wool, size=WORKERS, transport="ws")),
    "wool-grpc": ("wool_grpc", partial(wool, size=WORKERS, transport="grpc")),
    "wool-0.15": ("wool.runtime", partial(wool, spawn=WORKERS)),
    "processes": ("concurrent.futures", processes),
    "ray": ("ray", ray),
    "dask": ("distributed", dask),
    "pickles": ("pickle", pickles),
}
"""By name: the module that has to be installed, and what starts it."""


# What is measured


async def measure(peer: str, began: float) -> Figures:
    """Measures a peer in this process, which was started at `began`, in time.monotonic()."""
    async with PEERS[peer][1]() as calls:
        assert await calls.add(1, 2) == 3
        first = time.monotonic() - began
        await rate(calls, 1000)  # both workers are up, and warm
        figures = {
            "first": first,
            "latency": await latency(calls),
            "rate": await rate(calls, 20_000),
            "echo": await transfer(calls),
        }
        if calls.numbers is not None:
            figures["items"] = await stream(calls.numbers, 20_000)
    return figures


async def latency(calls: Calls) -> float:
    """Returns the median of calls one after another, in µs."""
    times: list[float] = []
    end = time.perf_counter() + LONGEST
    while len(times) < 2000 and time.perf_counter() < end:
        start = time.perf_counter()
        await calls.add(1, 2)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def rate(calls: Calls, count: int) -> float:
    """Returns calls per second with many under way."""
    start = time.perf_counter()
    left, made = iter(range(count)), itertools.count()

    async def lane() -> None:
        for i in left:
            if time.perf_counter() > start + LONGEST:
                break
            assert await calls.add(i, 1) == i + 1
            next(made)

    await asyncio.gather(*(lane() for _ in range(FLIGHT)))
    return next(made) / (time.perf_counter() - start)


async def transfer(calls: Calls) -> float:
    """Returns MB/s, there and back, of a megabyte at a time."""
    data = os.urandom(1 << 20)
    times: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        assert len(await calls.echo(data)) == len(data)
        times.append(time.perf_counter() - start)
    return 2 * len(data) / 1e6 / statistics.median(times)


async def stream(numbers: Callable[[int], Any], count: int) -> float:
    """Returns items per second of one stream."""
    start = time.perf_counter()
    taken = 0
    async with aclosing(numbers(count)) as items:
        async for _ in items:
            taken += 1
            if time.perf_counter() > start + LONGEST:
                break
    return taken / (time.perf_counter() - start)


# Processes, repetitions, results

HEAD = """\
| | first s | call µs | calls/s | 1 MB MB/s | items/s |
| --- | ---: | ---: | ---: | ---: | ---: |"""


def is_installed(module: str) -> bool:
    """Whether there is such a module, perhaps within a package that there is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def run(peer: str, python: str, quick: bool) -> Figures:
    """Measures a peer in a process of its own."""
    command = [python, __file__, "--measure", peer, "--began", repr(time.monotonic())]
    command += ["--quick"] * quick
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{peer} cannot be measured:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def row(peer: str, runs: list[Figures]) -> str:
    """Returns a row of the table."""

    def cell(key: str, pattern: str = "{:,.0f}", best: Callable[..., float] = max) -> str:
        values = [figures[key] for figures in runs if key in figures]
        if not values:
            return ""
        return f"{pattern} ({pattern})".format(statistics.median(values), best(values))

    cells = [
        cell("first", "{:.2f}", min),
        cell("latency", best=min),
        cell("rate"),
        cell("echo"),
        cell("items"),
    ]
    return f"| {peer} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Wool beside others")
    parser.add_argument("peers", nargs="*", help="NAME, or NAME=PYTHON if that is where it is")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="half a second for each figure")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return
    if given.measure:
        print(json.dumps(asyncio.run(measure(given.measure, given.began))))
        return
    installed = [peer for peer, (module, _) in PEERS.items() if is_installed(module)]
    pythons = dict((f"{name}={sys.executable}").split("=")[:2] for name in given.peers or installed)
    runs: dict[str, list[Figures]] = {peer: [] for peer in pythons}
    for _ in range(given.repeat):
        for peer, python in pythons.items():
            print(f"{peer} …", file=sys.stderr)
            runs[peer].append(run(peer, python, given.quick))
    print(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}\n\n{HEAD}"
    )
    for peer, several in runs.items():
        print(row(peer, several))


if __name__ == "__main__":
    main()
