"""The program of the other process in tests of serializers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wool.testing._process import say

if TYPE_CHECKING:
    from wool.testing._serializer.base import Base


async def play(suite: Base, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
    """Rebuilds a value, uses it, and sends back what came of that."""
    from wool.testing._serializer.base import leave
    from wool.testing._serializer.faults import line_of, payload_of

    serializer = suite.serializer()
    thing, holder, items, function = serializer.loads(payload_of(await told.get()))
    answer = [thing, len(holder.data), items, function(7)]
    say(line_of(serializer.dumps(answer, leave)))
    await told.get()
