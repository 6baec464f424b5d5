"""The transport `memory`: messages between loops of one process."""

from __future__ import annotations

import asyncio
import os

import pytest

from support.transports import connected, lost, read
from wool._transports.memory import MemoryTransport, _Channel
from wool.abc import ConnectFailed, ConnectionLost


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_peer_that_sends_and_closes_as_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own thread: after we have found nothing, and before we ask whether it is gone."""
    take, looks = _Channel.take, 0

    def take_and_be_late(channel: _Channel) -> list[bytes]:
        nonlocal looks
        looks += 1
        found = take(channel)
        if looks == 1:
            channel.put([b"last words"])
            channel.close()
        return found

    async with connected(MemoryTransport()) as (ours, _):
        monkeypatch.setattr(_Channel, "take", take_and_be_late)
        assert await read(ours, 1) == [b"last words"]
        with pytest.raises(ConnectionLost):
            await ours.receive()


# Connecting


async def refused(transport: MemoryTransport, address: str) -> None:
    with pytest.raises(ConnectFailed) as raised:
        await transport.connect(address, credentials=None, timeout=1)
    assert raised.value.reason == "refused"


async def test_an_address_belongs_to_one_transport() -> None:
    transport = MemoryTransport()
    first = await transport.listen(None, credentials=None)
    second = await transport.listen(None, credentials=None)
    assert first.address != second.address
    await refused(MemoryTransport(), first.address)
    with pytest.raises(ConnectFailed, match="already"):
        await transport.listen(first.address, credentials=None)
    await first.aclose()
    await transport.listen(first.address, credentials=None)


def test_connecting_after_the_listener_s_loop_has_ended() -> None:
    transport = MemoryTransport()
    listener = asyncio.run(transport.listen(None, credentials=None))
    asyncio.run(refused(transport, listener.address))


async def test_a_connection_nobody_has_picked_up() -> None:
    """It ends with the listener."""
    transport = MemoryTransport()
    listener = await transport.listen(None, credentials=None)
    task = asyncio.create_task(listener.serve(lambda end: asyncio.sleep(0)))
    await turns()
    end = await transport.connect(listener.address, credentials=None, timeout=5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await lost(end)


async def test_what_is_known_of_the_peer() -> None:
    async with connected(MemoryTransport()) as ends:
        for end in ends:
            assert end.extra("same_host") is True
            assert end.extra("peer") == "memory"
            assert end.extra("uid") == os.geteuid()
