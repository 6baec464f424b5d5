"""Routines that those of another module call, and that call them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import wool


@wool.routine
async def numbers(n: int) -> AsyncIterator[int]:
    for value in range(n):
        yield value


@wool.routine
async def again(depth: int, seen: list[int]) -> list[int]:
    from contract.project.jobs import nested

    return await nested(depth, seen)
