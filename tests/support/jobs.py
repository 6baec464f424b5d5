"""Routines that the fault tests share. Light, as every worker imports it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import wool

kept: list[object] = []  # what routines leave behind in a process


def tell(path: Path) -> None:
    """Writes this process's id to `path`, at once or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(str(os.getpid()))
    part.rename(path)


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


@wool.routine
async def pid() -> int:
    return os.getpid()


@wool.routine
async def nap(seconds: float) -> int:
    """Sleeps politely."""
    await asyncio.sleep(seconds)
    return os.getpid()


@wool.routine
async def stay(path: Path, seconds: float = 3600.0) -> int:
    """Tells where it runs, then sleeps politely."""
    tell(path)
    await asyncio.sleep(seconds)
    return os.getpid()


@wool.routine
async def hold(path: Path, release: Path) -> int:
    """Tells where it runs, then waits for the file `release`."""
    tell(path)
    while not release.exists():
        await asyncio.sleep(0.02)
    return os.getpid()


@wool.routine
async def block_until(release: Path, path: Path | None = None) -> int:
    """Blocks its loop until there is the file `release`, letting other threads run."""
    if path is not None:
        tell(path)
    while not release.exists():
        time.sleep(0.01)
    return os.getpid()


@wool.routine
async def block(seconds: float, path: Path | None = None) -> int:
    """Blocks its loop, letting other threads run."""
    if path is not None:
        tell(path)
    time.sleep(seconds)
    return os.getpid()


@wool.routine
async def seize(seconds: float, path: Path | None = None) -> int:
    """Blocks its process: C code that keeps the global interpreter lock."""
    if path is not None:
        tell(path)
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return os.getpid()


@wool.routine
async def seize_until(path: Path, fifo: Path) -> int:
    """Blocks its process until something is written: C code that keeps the interpreter lock."""
    source = os.open(fifo, os.O_RDWR)
    byte = ctypes.create_string_buffer(1)
    tell(path)
    ctypes.PyDLL(None).read(source, byte, 1)
    os.close(source)
    return os.getpid()


@wool.routine
async def mark(folder: Path, name: str, seconds: float = 0.0) -> str:
    """Leaves one byte in a file of that name for every time that it runs."""
    with open(folder / name, "ab", buffering=0) as file:
        file.write(b"x")
    if seconds:
        await asyncio.sleep(seconds)
    return name


@wool.routine
async def count(n: int) -> AsyncGenerator[int, None]:
    for i in range(n):
        yield i


@wool.routine
async def fib(n: int) -> int:
    if n < 2:
        return n
    async with asyncio.TaskGroup() as group:
        a = group.create_task(fib(n - 1))
        b = group.create_task(fib(n - 2))
    return a.result() + b.result()
