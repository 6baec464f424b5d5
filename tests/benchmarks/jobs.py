"""What workers do in measurements."""

from __future__ import annotations

from pickle import PickleBuffer

import wool

_held = bytearray(1 << 26)


@wool.routine
async def echo(value: int) -> int:
    return value


@wool.routine
async def take(data: PickleBuffer) -> int:
    """Takes bytes that are not copied on their way through pickle, as those of an array."""
    return memoryview(data).nbytes


@wool.routine
async def give(size: int) -> PickleBuffer:
    return PickleBuffer(memoryview(_held)[:size])
