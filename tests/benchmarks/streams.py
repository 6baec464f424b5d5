"""Large transfers beside small calls: on one connection, on a few, and on one for each call.

    python tests/benchmarks/streams.py --transport ws --delays 0 5 50 200

A worker in a process of its own is called over TLS, through a proxy that is as far away as it is
told (`delay.py`). Columns of the table: 64 MB to the worker and from it, in MB/s; four results of
16 MB at once; the median in ms of small calls one after another; of 32 at a time the median and the
99th percentile; the same while a transfer is under way, and the rate of that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PickleBuffer
from urllib.parse import urlsplit

import plain
from jobs import echo, give, take
from serve import set_credit

import wool
from wool._backends.cloudpickle import Options, make
from wool._client.peer_pool import PeerPool
from wool._protocol.frames import CallOptions
from wool._protocol.transfer import WINDOW
from wool._security.credentials import SameUser, Token
from wool._security.keyring import Keyring
from wool._worker.transports import Transports

HERE = Path(__file__).parent
LARGE = 1 << 26
FLIGHT = 32
FLOOR = "plain TCP"
"""What the rows of the table say that show the least that is possible."""

Figures = dict[str, float]
Connection = Callable[[], AbstractAsyncContextManager[object]]


# How calls are distributed over connections


@dataclass(frozen=True)
class Variant:
    """How calls get their connections.

    Attributes:
        kept: how many connections there are; 0: each call makes its own.
        large: which of them carry large transfers, in turn.
        small: which of them carry small calls.
        calls: how many small calls are made, several at a time.
        sequence: how many are made one after another.
    """

    name: str
    kept: int
    large: range
    small: range
    calls: int = 1000
    sequence: int = 20


VARIANTS = {
    "one": Variant("one for all", 1, range(1), range(1)),
    "mixed": Variant("4 for all", 4, range(4), range(4)),
    "apart": Variant("1 large, 3 small", 4, range(1), range(1, 4)),
    "each": Variant("one per call", 0, range(0), range(0), calls=128, sequence=5),
}


class Caller:
    """Opens connections to a worker."""

    def __init__(self, address: str, token: str) -> None:
        self._member = {"w": wool.WorkerInfo(id="w", address=address)}
        self._routes = Transports({}).routes
        self._keyring = Keyring(SameUser(), Token(token))
        self._serializer = make(Options())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PeerPool]:
        """Has what is called within use a connection of its own, made by the first call."""
        pool = PeerPool(secrets.token_hex(4), CallOptions(quorum_timeout=30.0))
        pool.opened(self._routes, self._keyring, "cloudpickle", self._serializer)
        pool.set_members(self._member)
        try:
            with pool.view.use():
                yield pool
        finally:
            await pool.close_clients()

    @asynccontextmanager
    async def connections(self, variant: Variant) -> AsyncIterator[tuple[Connection, Connection]]:
        """Opens those of a variant; says what large and what small calls are to use."""
        if not variant.kept:
            yield self.connection, self.connection
            return
        async with contextlib.AsyncExitStack() as stack:
            pools = [
                await stack.enter_async_context(self.connection()) for _ in range(variant.kept)
            ]
            for pool in pools:
                with pool.view.use():
                    await echo(0)
            large, small = itertools.cycle(variant.large), itertools.cycle(variant.small)
            yield lambda: _using(pools[next(large)]), lambda: _using(pools[next(small)])


@asynccontextmanager
async def _using(pool: PeerPool) -> AsyncIterator[None]:
    with pool.view.use():
        yield


# What is measured


async def timed(connection: Connection, call: Callable[[], Awaitable[object]]) -> float:
    """Returns the seconds a call takes, with its connection if that has to be made."""
    start = time.perf_counter()
    async with connection():
        await call()
        return time.perf_counter() - start


async def alone(variant: Variant, large: Connection, small: Connection) -> Figures:
    """Measures transfers alone and small calls alone."""
    data = bytearray(LARGE)
    up = await timed(large, lambda: take(PickleBuffer(data)))
    down = await timed(large, lambda: give(LARGE))
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(timed(large, lambda: give(LARGE // 4)))
    several = time.perf_counter() - start
    sequence = [await timed(small, lambda: echo(1)) for _ in range(variant.sequence)]
    left = iter(range(variant.calls))
    start = time.perf_counter()
    times = await _many(small, lambda: next(left, None) is not None)
    return {
        "up": LARGE / up / 1e6,
        "down": LARGE / down / 1e6,
        "several": LARGE / several / 1e6,
        "sequence": statistics.median(sequence) * 1e3,
        "p50": _percentile(times, 50) * 1e3,
        "p99": _percentile(times, 99) * 1e3,
        "rate": len(times) / (time.perf_counter() - start),
    }


async def beside(variant: Variant, large: Connection, small: Connection) -> Figures:
    """Measures small calls while one transfer follows another, to and from the worker in turn."""
    data = bytearray(LARGE)
    started = itertools.count()
    moved, start = 0, time.perf_counter()

    async def move() -> None:
        nonlocal moved
        while moved < 2 or not enough():
            await timed(large, lambda: give(LARGE) if moved % 2 else take(PickleBuffer(data)))
            moved += 1

    calls = 0

    def enough() -> bool:
        return calls >= variant.calls

    def go_on() -> bool:
        nonlocal calls
        calls = next(started)
        return not moving.done()

    moving = asyncio.create_task(move())
    times = await _many(small, go_on)
    await moving
    seconds = time.perf_counter() - start
    return {
        "beside": moved * LARGE / seconds / 1e6,
        "beside_p50": _percentile(times, 50) * 1e3,
        "beside_p99": _percentile(times, 99) * 1e3,
        "beside_rate": len(times) / seconds,
    }


async def _many(small: Connection, go_on: Callable[[], bool]) -> list[float]:
    """Makes small calls, some at a time; returns how long they took."""
    times: list[float] = []

    async def lane() -> None:
        while go_on():
            times.append(await timed(small, lambda: echo(1)))

    async with asyncio.TaskGroup() as group:
        for _ in range(FLIGHT):
            group.create_task(lane())
    return times


def floor(address: str) -> Figures:
    """Measures what a connection of plain TCP makes of the same."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def seconds(up: int, down: int) -> float:
            start = time.perf_counter()
            plain.transfer(sock, up, down)
            return time.perf_counter() - start

        seconds(LARGE // 4, LARGE // 4)
        up, down = seconds(LARGE, 1), seconds(1, LARGE)
        sequence = statistics.median(seconds(1, 1) for _ in range(10))
    return {"up": LARGE / up / 1e6, "down": LARGE / down / 1e6, "sequence": sequence * 1e3}


def _percentile(times: list[float], percent: int) -> float:
    return sorted(times)[min(len(times) * percent // 100, len(times) - 1)]


# Processes, repetitions


@contextlib.contextmanager
def program(*command: str, **environment: str) -> Iterator[list[str]]:
    """Runs another program of this folder; yields the words it prints first."""
    process = subprocess.Popen(
        [sys.executable, HERE / command[0], *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None and process.stdout is not None
            yield process.stdout.readline().split()
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(given: argparse.Namespace, delay: float) -> dict[str, Figures]:
    """Measures all variants at one distance; returns medians."""
    runs: dict[str, list[Figures]] = {}
    token, credit = wool.Credentials.new_token(), int(given.credit * (1 << 20))
    set_credit(credit)
    with contextlib.ExitStack() as stack:
        listening = f"{given.transport}://127.0.0.1:0"
        words = stack.enter_context(program("serve.py", listening, str(credit), WOOL_TOKEN=token))
        worker = urlsplit(words[0])
        link = [f"--delay={delay}", f"--rate={given.rate}", f"--window={given.window}"]
        near = [
            stack.enter_context(program("delay.py", f"--to={place}", *link))[0]
            for place in (worker.netloc, words[1])
        ]
        address = f"{worker.scheme}://{near[0]}"
        for _ in range(given.repeat):
            runs.setdefault(FLOOR, []).append(floor(near[1]))
            for name in given.variants:
                variant = VARIANTS[name]
                print(f"{delay:g} ms, {variant.name} …", file=sys.stderr)
                figures = asyncio.run(once(variant, Caller(address, token)))
                runs.setdefault(variant.name, []).append(figures)
    return {
        name: {key: statistics.median(run[key] for run in several) for key in several[0]}
        for name, several in runs.items()
    }


async def once(variant: Variant, caller: Caller) -> Figures:
    """Measures one variant."""
    async with caller.connections(variant) as (large, small):
        for _ in variant.large:  # the first round trips of a connection carry little
            async with large():
                await take(PickleBuffer(bytes(LARGE // 4)))
                await give(LARGE // 4)
        return await alone(variant, large, small) | await beside(variant, large, small)


# Results

HEAD = """\
| delay | connections | to | from | 4 at once | 1 small | 32 small | beside large | large beside small |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""  # noqa: E501


def row(delay: float, name: str, figures: Figures) -> str:
    """Returns a row of the table: rates in MB/s, times in ms."""

    def cell(pattern: str, *keys: str) -> str:
        return pattern.format(*(figures[k] for k in keys)) if keys[0] in figures else ""

    cells = [
        f"{delay:g}",
        name,
        cell("{:.0f}", "up"),
        cell("{:.0f}", "down"),
        cell("{:.0f}", "several"),
        cell("{:.1f}", "sequence"),
        cell("{:.0f} / {:.0f}", "p50", "p99"),
        cell("{:.0f} / {:.0f}", "beside_p50", "beside_p99"),
        cell("{:.0f}", "beside"),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="connections for large and small calls")
    parser.add_argument("--transport", default="ws")
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 5, 50, 200], help="in ms")
    parser.add_argument("--rate", default="inf", help="of the link, in MB/s")
    parser.add_argument("--window", default="3", help="of a TCP connection, in MiB")
    parser.add_argument(
        "--credit", type=float, default=WINDOW / (1 << 20), help="of a call, in MiB"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results: list[dict[str, object]] = []
    if not given.json:
        print(HEAD)
    for delay in given.delays:
        for name, figures in measure(given, delay).items():
            if given.json:
                results.append({"delay": delay, "connections": name, **figures})
            else:
                print(row(delay, name, figures), flush=True)
    if given.json:
        print(json.dumps({**vars(given), "results": results}, indent=2))


if __name__ == "__main__":
    main()
