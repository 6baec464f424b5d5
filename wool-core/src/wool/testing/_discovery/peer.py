"""The program of the other process in tests of discoveries."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from wool.abc import WorkerInfo
from wool.testing._process import say

if TYPE_CHECKING:
    from wool.testing._discovery.base import Base


async def play(suite: Base, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
    """Announces workers until told to leave."""
    discovery = suite.discovery(order["namespace"])
    async with AsyncExitStack() as stack:
        for ident, address, pid in order["workers"]:
            worker = WorkerInfo(id=ident, address=address, pid=pid, host="here")
            await stack.enter_async_context(discovery.announce(worker))
        say("announced")
        await told.get()
    say("left")
