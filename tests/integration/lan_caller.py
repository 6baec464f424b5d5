"""A program that calls workers found by `zeroconf`; tests tell it on its standard input what to do.

It answers each line with a line of JSON. Its routines are known to nobody else.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from string import ascii_lowercase
from typing import Any

import wool


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


@wool.routine
async def search(letters: str) -> AsyncGenerator[str, str | None]:
    """Guesses one of `letters`, which are in order; wants to hear "higher" or "lower"."""
    low, high = 0, len(letters) - 1
    while low <= high:
        middle = (low + high) // 2
        hint = yield letters[middle]
        if hint == "higher":
            low = middle + 1
        elif hint == "lower":
            high = middle - 1
        else:
            return


@wool.routine
async def machine() -> str:
    """Tells where it runs."""
    return here()


@wool.routine
async def tree(depth: int) -> set[tuple[str, str]]:
    """From which machines to which a tree of calls has gone."""
    if not depth:
        await asyncio.sleep(0.01)
        return {(here(), "")}
    branches = await asyncio.gather(*(tree(depth - 1) for _ in range(3)))
    ways = {(here(), there) for branch in branches for there, _ in branch}
    return ways.union(*branches)


@wool.routine
async def stay() -> AsyncGenerator[str, Any]:
    """Tells where it runs, and stays there until the next step is cancelled."""
    yield here()
    await asyncio.Event().wait()


def here() -> str:
    """The address of this machine."""
    for family, far in (socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((far, 9))
            return str(sock.getsockname()[0])
    return ""


class Program:
    """What can be asked for, by name."""

    def __init__(self, pool: wool.WorkerPool) -> None:
        self._pool = pool
        self._streams: dict[str, AsyncGenerator[str, Any]] = {}

    async def examples(self) -> Any:
        guesses, secret, tried = search(ascii_lowercase), "q", list[str]()
        guess = await anext(guesses)
        while guess != secret:
            tried.append(guess)
            guess = await guesses.asend("higher" if secret > guess else "lower")
        await guesses.aclose()
        return [await add(1, 2), "".join([*tried, guess])]

    async def tree(self) -> Any:
        return sorted(way for way in await tree(4) if all(way))

    async def call(self) -> Any:
        return await machine()

    async def machines(self) -> Any:
        return sorted({*await asyncio.gather(*(machine() for _ in range(20)))})

    async def workers(self) -> Any:
        return sorted(worker.address for worker in self._pool.workers)

    async def spread(self, *wanted: str) -> Any:
        """Opens a stream on each of these machines."""
        while not {*wanted} <= {*self._streams}:
            streams = [stay() for _ in range(4)]
            places = await asyncio.gather(*(anext(stream) for stream in streams))
            for place, stream in zip(places, streams, strict=True):
                if place in self._streams:
                    await stream.aclose()
                else:
                    self._streams[place] = stream
        return sorted(self._streams)

    async def hold(self, place: str) -> Any:
        """Waits in the stream on a machine, which says nothing more."""
        await anext(self._streams.pop(place))

    async def wait(self, workers: str) -> Any:
        await self._pool.wait(int(workers), timeout=30)


async def answer(program: Program, number: str, name: str, *arguments: str) -> None:
    started = time.monotonic()
    try:
        told = await getattr(program, name)(*arguments)
    except wool.WoolError as error:
        told = [type(error).__name__, str(error), getattr(error, "outcome", "")]
    line = json.dumps({"number": number, "told": told, "seconds": time.monotonic() - started})
    print(line, flush=True)


async def main(options: dict[str, Any]) -> None:
    async with wool.WorkerPool(**options) as pool, asyncio.TaskGroup() as tasks:
        program = Program(pool)
        print("{}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.create_task(answer(program, *line.split()))


asyncio.run(main(json.loads(sys.argv[1])))
