"""A pipeline of five stages over three workers: what passes through the caller, and how fast.

    python tests/benchmarks/pipeline.py --transport unix

The stages are routines, and the caller passes calls of them to one another. For comparison the same
stages are tied together by generators of the caller, so that all data goes through it. At the end
stage three is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wool
import wool._client.link as link_module
from wool._peer.handshaking import dial

STAGES = ("one", "two", "three", "four", "five")


def make_stages(prefetch: int) -> tuple[Any, Any]:
    """Returns the first stage, and the one that is used three times."""

    @wool.routine(prefetch=prefetch)
    async def produce(items: int, size: int, folder: str) -> AsyncIterator[bytes]:
        note(folder, "one", f"on {os.getpid()}")
        try:
            for i in range(items):
                yield i.to_bytes(8, "big") + bytes(size - 8)
        finally:
            note(folder, "one", "ends")

    @wool.routine(prefetch=prefetch)
    async def transform(name: str, source: Any, folder: str) -> AsyncIterator[bytes]:
        note(folder, name, f"on {os.getpid()}")
        try:
            async for item in source:
                yield item[::-1]
        finally:
            note(folder, name, "ends")

    return produce, transform


@wool.routine
async def consume(source: Any, folder: str) -> tuple[int, int]:
    """Stage five: counts items and bytes."""
    note(folder, "five", f"on {os.getpid()}")
    items = size = 0
    try:
        async for item in source:
            items += 1
            size += len(item)
    finally:
        note(folder, "five", "ends")
    return items, size


def note(folder: str, name: str, line: str) -> None:
    with Path(folder, name).open("a") as file:
        file.write(f"{line}\n")


def notes(folder: str, name: str) -> list[str]:
    path = Path(folder, name)
    return path.read_text().splitlines() if path.exists() else []


# What passes through the caller


@dataclass
class Count:
    """Bytes of messages, both ways, without those of handshakes."""

    sent: int = 0
    received: int = 0


class Counted:
    """A connection that counts."""

    def __init__(self, connection: Any, count: Count) -> None:
        self._connection = connection
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def send(self, messages: Sequence[Sequence[Any]]) -> None:
        self._sent(messages)
        await self._connection.send(messages)

    def send_now(self, messages: Sequence[Sequence[Any]]) -> None:
        self._sent(messages)
        self._connection.send_now(messages)

    async def receive(self) -> Sequence[Any]:
        messages = await self._connection.receive()
        self._count.received += sum(map(len, messages))
        return messages

    def _sent(self, messages: Sequence[Sequence[Any]]) -> None:
        self._count.sent += sum(len(part) for message in messages for part in message)


def count_bytes() -> Count:
    """Has all connections that this process dials from now on count their bytes."""
    count = Count()

    async def dial_counted(*args: Any, **kwargs: Any) -> Any:
        session, welcome = await dial(*args, **kwargs)
        session.connection = Counted(session.connection, count)  # type: ignore[assignment]
        return session, welcome

    link_module.dial = dial_counted
    return count


# Runs


def through_workers(source: Any) -> Any:
    """The next stage gets the call."""
    return source


async def through_caller(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The next stage gets a generator of the caller."""
    async for item in source:
        yield item


def pipeline(
    tie: Callable[[Any], Any], items: int, size: int, folder: str, prefetch: int = 0
) -> Any:
    produce, transform = make_stages(prefetch)
    source = produce(items, size, folder)
    for name in STAGES[1:-1]:
        source = transform(name, tie(source), folder)
    return consume(tie(source), folder)


async def measure(
    label: str,
    tie: Callable[[Any], Any],
    items: int,
    size: int,
    count: Count,
    prefetch: int = 0,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sent, received = count.sent, count.received
        begin = time.perf_counter()
        result = await pipeline(tie, items, size, folder, prefetch)
        seconds = time.perf_counter() - begin
        assert result == (items, items * size), result
        passed = (count.sent - sent) + (count.received - received)
        places = len({notes(folder, name)[0] for name in STAGES})
    print(
        f"{label:17} {size:>8,} B  {items:>6,} items  {items / seconds:>8,.0f} items/s  "
        f"{items * size / seconds / 2**20:>7.1f} MiB/s  through the caller: {passed:>13,} B "
        f"({passed / items:,.1f} B an item)  on {places} workers"
    )


async def kill_three(pool: wool.WorkerPool, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        running = asyncio.ensure_future(pipeline(through_workers, 10**9, size, folder))
        while not all(notes(folder, name) for name in STAGES):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        pids = {name: int(notes(folder, name)[0].split()[1]) for name in STAGES}
        begin = time.perf_counter()
        os.kill(pids["three"], signal.SIGKILL)
        try:
            await running
        except wool.WorkerLost as error:
            seconds = time.perf_counter() - begin
            print(f"\nstage three killed: the caller sees, after {seconds * 1000:.0f} ms:")
            print(f"  {type(error).__name__}: {error}")
        others = [name for name in STAGES if pids[name] != pids["three"]]
        while not all(notes(folder, name)[-1] == "ends" for name in others):
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - begin
        died = [name for name in STAGES if name not in others]
        print(f"  {', '.join(died)} died; finally has run in {', '.join(others)}", end=" ")
        print(f"after {seconds * 1000:.0f} ms")
        await pool.wait(3, timeout=30)
        print(f"  the pool goes on: {await pipeline(through_workers, 100, size, folder)}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transport", default="unix")
    parser.add_argument("--items", type=int, default=3000)
    options = parser.parse_args()
    count = count_bytes()
    async with wool.WorkerPool(size=3, transport=options.transport) as pool:
        await pool.wait(3, timeout=60)
        with tempfile.TemporaryDirectory() as folder:
            await pipeline(through_workers, 100, 100, folder)
        for size, items in ((100, options.items), (65536, options.items // 3)):
            await measure("worker to worker", through_workers, items, size, count)
            await measure("with prefetch=16", through_workers, items, size, count, 16)
            await measure("by the caller", through_caller, items // 3, size, count)
        await kill_three(pool, 100)


if __name__ == "__main__":
    asyncio.run(main())
