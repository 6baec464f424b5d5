"""The inbox, in which messages wait; the kit of transports tests the rest through connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wool.abc import ConnectionLost, Inbox


def texts(messages: Sequence[bytes | memoryview]) -> list[bytes]:
    return [bytes(message) for message in messages]


steps = st.lists(st.sampled_from(["put", "receive", "pump", "stop", "turn"]), max_size=40)


@given(steps)
def test_nothing_is_lost(steps: list[str]) -> None:
    """Whoever takes, and whenever somebody stops: each message comes once, in order."""

    async def run() -> None:
        inbox, got, taking = Inbox(asyncio.get_running_loop()), list[bytes](), list[Any]()

        def take(messages: Sequence[bytes | memoryview]) -> None:
            got.extend(texts(messages))

        async def receive() -> None:
            take(await inbox.receive())

        async def stop() -> None:
            for task in taking:
                task.cancel()
            await asyncio.gather(*taking, return_exceptions=True)
            taking.clear()

        sent = 0
        for step in steps:
            if step == "put":
                inbox.put([b"%d" % sent, b"%d" % (sent + 1)])
                sent += 2
            elif step in ("receive", "pump"):
                await stop()
                taking.append(
                    asyncio.ensure_future(receive() if step == "receive" else inbox.pump(take))
                )
            elif step == "stop":
                await stop()
            else:
                await asyncio.sleep(0)
        await stop()
        inbox.end("no more")
        with pytest.raises(ConnectionLost, match="no more"):
            await inbox.pump(take)
        assert got == [b"%d" % number for number in range(sent)]

    asyncio.run(run())


async def test_what_waits_is_counted() -> None:
    """With what even an empty message takes."""
    inbox = Inbox(asyncio.get_running_loop())
    inbox.put([])
    assert inbox.waiting == 0
    inbox.put([b"x" * 1000, b""])
    assert 1000 < inbox.waiting < 2000
    assert len(await inbox.receive()) == 2
    assert inbox.waiting == 0


async def test_whoever_pumps_is_given_at_once() -> None:
    """Within `put`, and as it was put in."""
    inbox, given = Inbox(asyncio.get_running_loop()), list[Any]()
    pumping = asyncio.ensure_future(inbox.pump(given.append))
    await asyncio.sleep(0)
    batch = [b"one", b"two"]
    inbox.put(batch)
    assert given == [batch] and inbox.waiting == 0
    inbox.end("")
    with pytest.raises(ConnectionLost, match="the connection has ended"):
        await pumping


async def test_the_first_reason_counts() -> None:
    inbox = Inbox(asyncio.get_running_loop())
    inbox.end("first")
    inbox.end("second")
    for taking in (inbox.receive(), inbox.receive(), inbox.pump(print)):
        with pytest.raises(ConnectionLost, match="first"):
            await taking


@pytest.mark.parametrize("pumps", [False, True])
async def test_what_comes_in_the_turn_of_the_end(pumps: bool) -> None:
    """Is given before whoever waits learns of the end, as it came first on the wire."""
    inbox, got = Inbox(asyncio.get_running_loop()), list[bytes]()

    async def take() -> None:
        while True:
            got.extend(texts(await inbox.receive()))

    async def pump() -> None:
        await inbox.pump(lambda messages: got.extend(texts(messages)))

    taking = asyncio.ensure_future(pump() if pumps else take())
    await asyncio.sleep(0)
    inbox.end("no more")
    inbox.put([b"the last one"])
    with pytest.raises(ConnectionLost, match="no more"):
        await taking
    assert got == [b"the last one"]
