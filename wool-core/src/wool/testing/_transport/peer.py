"""The program of the other process in tests of transports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wool.testing._process import say

if TYPE_CHECKING:
    from wool.testing._transport.base import Base


async def play(suite: Base, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
    """Echoes on the connection that it dials, or on those that it accepts."""
    from wool.testing._transport.listening import echo

    transport, credentials = suite.transport(), suite.credentials()
    if order["role"] == "dials":
        await echo(await transport.connect(order["address"], credentials=credentials, timeout=30))
    else:
        listener = await transport.listen(order["address"], credentials=credentials)
        say(listener.address)
        await listener.serve(echo)
