"""A module that knows nothing of Wool, whose functions become routines elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def double(x: int) -> int:
    return 2 * x


async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


class Plain:
    def __init__(self, n: int) -> None:
        self.n = n

    async def get(self) -> int:
        return self.n
