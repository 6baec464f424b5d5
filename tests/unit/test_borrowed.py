"""Objects of a peer that are in use here, and are given up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from wool._peer.references import RELEASED, Borrowed, Lent
from wool._protocol import frames as f


async def test_many_that_are_given_up_at_once() -> None:
    """Each frame has a limit."""
    sent: list[f.Release] = []
    session: Any = SimpleNamespace(send=sent.append)
    unused: Any = None
    table = Borrowed(session, Lent(), unused)
    keys = {number.to_bytes(4, "big") for number in range(2 * RELEASED + 1)}
    held = [table.arrive([key]) for key in keys]
    assert table.any
    held.clear()
    await asyncio.sleep(0)
    assert [len(frame.references) for frame in sent] == [RELEASED, RELEASED, 1]
    assert {lent.key for frame in sent for lent in frame.references} == keys
    assert not table.any
