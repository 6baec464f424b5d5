"""The transport `memory`: messages between loops of one process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from wool._transports.memory import MAX_MESSAGE, MemoryTransport, _Channel
from wool.abc import ConnectFailed, Connection, ConnectionLost, MessageTooLarge

MIB = 1 << 20


async def read(end: Connection, count: int) -> list[bytes]:
    """The next `count` messages."""
    got: list[bytes] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += map(bytes, await end.receive())
    return got


async def lost(end: Connection) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionLost):
            await end.receive()
        with pytest.raises(ConnectionLost):
            await end.send([[b"x"]])


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Connection]]:
    """The two ends of a connection."""
    transport = MemoryTransport()
    listener = await transport.listen(None, credentials=None)
    ends: asyncio.Queue[Connection] = asyncio.Queue()

    async def handle(end: Connection) -> None:
        end.receive_limit = MAX_MESSAGE
        ends.put_nowait(end)
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(listener.serve(handle))
    ours = await transport.connect(listener.address, credentials=None, timeout=5)
    ours.receive_limit = MAX_MESSAGE
    try:
        yield ours, await ends.get()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_order_both_ways() -> None:
    async with connected() as (ours, theirs):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            await sender.send([[b"a", bytearray(b"b"), memoryview(b"c")], []])
            for n in range(100):
                await sender.send([[b"%d" % n], [b"%d" % -n]])
            expected = [b"abc", b"", *(b"%d" % m for n in range(100) for m in (n, -n))]
            assert await read(receiver, len(expected)) == expected


async def test_order_between_threads() -> None:
    """An end belongs to the loop that made it; here the other one echoes from its own thread."""
    transport = MemoryTransport()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ours = asyncio.get_running_loop()

    async def echo(end: Connection) -> None:
        while True:
            await end.send([[message] for message in await end.receive()])

    async def serve() -> None:
        listener = await transport.listen(None, credentials=None)
        ours.call_soon_threadsafe(address.set_result, listener.address)
        stopped = asyncio.Event()

        async def handle(end: Connection) -> None:
            try:
                await echo(end)
            except ConnectionLost:
                stopped.set()

        task = asyncio.create_task(listener.serve(handle))
        await stopped.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    end = await transport.connect(await address, credentials=None, timeout=5)
    sent = [b"%d" % n for n in range(2000)]

    async def send_all() -> None:
        for message in sent:
            await end.send([[message]])
            await asyncio.sleep(0)

    _, got = await asyncio.gather(send_all(), read(end, len(sent)))
    assert got == sent
    await end.aclose()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_messages_are_copies() -> None:
    async with connected() as (ours, theirs):
        data = bytearray(b"before")
        await ours.send([[data]])
        data[:] = b"after!"
        assert await read(theirs, 1) == [b"before"]


async def test_back_pressure() -> None:
    """`send` waits while the peer does not take what there is, and goes on when it does."""
    async with connected() as (ours, theirs):
        sent = [bytes([n]) * MIB for n in range(12)]
        taken = 0

        async def send_all() -> None:
            nonlocal taken
            for message in sent:
                await ours.send([[message]])
                taken += 1

        sending = asyncio.create_task(send_all())
        await turns()
        assert 0 < taken < 6
        await theirs.send([[b"the other way"]])
        assert await read(ours, 1) == [b"the other way"]
        first = await read(theirs, 1)
        await turns()
        assert taken < 12
        rest = await read(theirs, len(sent) - len(first))
        await asyncio.wait_for(sending, 5)
        assert first + rest == sent


async def test_a_message_that_is_too_large_is_not_sent() -> None:
    async with connected() as (ours, theirs):
        assert ours.max_message_size == MAX_MESSAGE
        with pytest.raises(MessageTooLarge):
            await ours.send([[b"none of it"], [bytes(MAX_MESSAGE), b"x"]])
        await ours.send([[b"this"]])
        assert await read(theirs, 1) == [b"this"]


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with connected() as (ours, theirs):
        for number in range(5):
            waiting = asyncio.create_task(theirs.receive())
            await turns()
            await ours.send([[b"%d" % number]])
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await read(theirs, 1) == [b"%d" % number]


@pytest.mark.parametrize("ours_first", [True, False])
async def test_closing(ours_first: bool) -> None:
    """What has been sent arrives; then there is nothing more, either way."""
    async with connected() as ends:
        closing, other = ends if ours_first else reversed(ends)
        await closing.send([[b"last"], [b"words"]])
        await closing.aclose()
        await closing.aclose()
        assert await read(other, 2) == [b"last", b"words"]
        await lost(other)
        await lost(closing)


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

    async with connected() as (ours, _):
        monkeypatch.setattr(_Channel, "take", take_and_be_late)
        assert await read(ours, 1) == [b"last words"]
        with pytest.raises(ConnectionLost):
            await ours.receive()


@pytest.mark.parametrize("ours_first", [True, False])
async def test_closing_ends_what_waits(ours_first: bool) -> None:
    async with connected() as ends:
        closing, other = ends if ours_first else reversed(ends)
        receiving = asyncio.create_task(other.receive())
        own = asyncio.create_task(closing.receive())
        await turns()
        await closing.aclose()
        async with asyncio.timeout(5):
            for task in (receiving, own):
                with pytest.raises(ConnectionLost):
                    await task


async def test_closing_ends_a_send_that_waits() -> None:
    async with connected() as (ours, theirs):
        sending = asyncio.create_task(ours.send([[bytes(8 * MIB)]]))
        await turns()
        assert not sending.done()
        await theirs.aclose()
        async with asyncio.timeout(5):
            await asyncio.gather(sending, return_exceptions=True)
        await lost(ours)


async def test_the_end_of_a_handler_closes_its_connection() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(None, credentials=None)

    async def handle(end: Connection) -> None:
        await end.send([[b"goodbye"]])

    task = asyncio.create_task(listener.serve(handle))
    end = await transport.connect(listener.address, credentials=None, timeout=5)
    assert await read(end, 1) == [b"goodbye"]
    await lost(end)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# Connecting


async def refused(transport: MemoryTransport, address: str) -> None:
    with pytest.raises(ConnectFailed) as raised:
        await transport.connect(address, credentials=None, timeout=1)
    assert raised.value.reason == "refused"


async def test_nobody_listens() -> None:
    await refused(MemoryTransport(), "memory://1")


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


async def test_connecting_after_the_listener_has_closed() -> None:
    transport = MemoryTransport()
    listener = await transport.listen(None, credentials=None)
    await listener.aclose()
    await listener.aclose()
    await refused(transport, listener.address)


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
    async with connected() as ends:
        for end in ends:
            assert end.extra("same_host") is True
            assert end.extra("peer") == "memory"
            assert end.extra("uid") == os.geteuid()
