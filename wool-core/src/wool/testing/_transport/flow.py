"""Back-pressure, and cancelling whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from wool.abc import Connection, ConnectionLost, Segments
from wool.testing._kit import compare, remedy, soon, turns
from wool.testing._transport.base import Base, End, Site, chance

MESSAGE = 256 << 10
BOUND = 64 << 20
"""Bytes that both sides together may hold for a receiver that does not receive."""


async def _elsewhere(work: Callable[..., bool], *args: Any) -> bool:
    return await asyncio.to_thread(work, *args)


async def _here(work: Callable[..., bool], *args: Any) -> bool:
    return work(*args)


THREADS = {"another thread": _elsewhere, "its own thread": _here}


def _send_now(connection: Connection, batch: Sequence[Segments]) -> bool:
    """Sends past `send` if that is possible, and says whether it was."""
    possible = connection.can_send_now()
    if possible:
        connection.send_now(batch)
    return possible


def numbered(number: int) -> bytes:
    return number.to_bytes(8, "big") * (MESSAGE // 8)


class Flood:
    """Sends numbered messages until it is stopped.

    Attributes:
        taken: how many messages `send` has taken, that is: returned for.
    """

    def __init__(self, end: End) -> None:
        self.taken = 0
        self._connection = end.connection
        self._stopping = False
        self.task = asyncio.ensure_future(self._send())
        # How it ends is of interest where it is asked for.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _send(self) -> None:
        while not self._stopping and self.taken * MESSAGE <= BOUND:
            await self._connection.send([[numbered(self.taken)]])
            self.taken += 1

    async def stalls(self) -> None:
        """Waits until no message has been taken for a while: nothing tells that `send` waits."""
        before = idle = 0
        while idle < (1 if self.taken else 10):
            await asyncio.sleep(0.1)
            if self.taken == before:  # it may have been the whole process that did not get on
                await turns(50)
            idle = idle + 1 if self.taken == before else 0
            before = self.taken
            if self.task.done():
                self.task.result()
                pytest.fail(f"send took {BOUND} bytes while nobody received")

    def ebb(self) -> None:
        """Has the flood end after the present message."""
        self._stopping = True

    async def stop(self, receiver: End) -> list[bytes]:
        """Has the flood end after the present message; returns all messages, which it reads."""
        self.ebb()
        got: list[bytes] = []
        while not self.task.done() or len(got) < self.taken:
            if len(got) <= self.taken:
                got += await receiver.receive()
            else:  # the last one is there, so that its `send` need only return
                await soon(asyncio.wait([self.task]), "send", receiver.patience)
        self.task.result()
        return got


async def cancelled(
    receiving: asyncio.Future[Sequence[bytes | memoryview]], seconds: float
) -> list[bytes]:
    """Cancels a `receive`; returns what it has returned for all that."""
    receiving.cancel()
    await asyncio.wait([receiving], timeout=seconds)
    assert receiving.done(), "a cancelled receive goes on"
    return [] if receiving.cancelled() else [bytes(message) for message in receiving.result()]


class Flow(Base):
    """Part of `TransportSuite`."""

    @remedy("Bound what is queued, on both sides, and let `send` wait until there is room again.")
    async def test_back_pressure(self, site: Site) -> None:
        """`send` waits for a peer that does not receive, after 64 MiB at the latest."""

        async def check(sender: End, receiver: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            got = await flood.stop(receiver)
            compare(got, [numbered(number) for number in range(flood.taken)])
            await sender.send(b"and on")
            assert await receiver.read(1) == [b"and on"]

        await site.each_way(check)

    @remedy("Let no lock or task serve both directions.")
    async def test_a_clogged_direction_does_not_clog_the_other(self, site: Site) -> None:
        """Where one direction is clogged, the other one goes on."""

        async def check(sender: End, receiver: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            for number in range(10):
                await receiver.send(b"%d" % number)
                assert await sender.read(1) == [b"%d" % number]
            await flood.stop(receiver)

        await site.each_way(check)

    @remedy("Let no lock, queue or task serve several connections; mind limits of the library.")
    async def test_a_clogged_connection_does_not_clog_others(self, site: Site) -> None:
        """Where one connection is clogged, the others go on."""
        (sender, receiver), others = await site.link(), await site.link()
        flood = Flood(sender)
        await flood.stalls()
        for one, other in (others, others[::-1]):
            await one.send(b"passes")
            assert await other.read(1) == [b"passes"]
        await flood.stop(receiver)

    @remedy("Wait first, and take messages off the queue where nothing can be cancelled any more.")
    async def test_a_cancelled_receive(self, site: Site) -> None:
        """A cancelled `receive` loses nothing, whenever the cancel comes."""
        for sender, receiver in await site.links():
            luck, sent, got = chance(2), list[bytes](), list[bytes]()
            for number in range(400):
                receiving = asyncio.ensure_future(receiver.connection.receive())
                await turns(luck.randrange(4))
                batch = [
                    b"%d," % number * luck.choice((1, 1, 1, 120_000)) for _ in range(1 + number % 2)
                ]
                sending = asyncio.ensure_future(sender.send(*batch))
                sent += batch
                await turns(luck.randrange(16))
                if number % 10 == 0:  # what other threads do takes time, not turns of this loop
                    await asyncio.sleep(luck.random() / 300)
                got += await cancelled(receiving, self.patience)
                await sending
                if number % 3 and len(got) < len(sent):  # so that the next one has to wait
                    got += await receiver.read(len(sent) - len(got))
            if len(got) < len(sent):
                got += await receiver.read(len(sent) - len(got))
            compare(got, sent)

    @remedy("Let the cancellation pass; do not close the connection for it.")
    async def test_a_cancelled_receive_when_nothing_comes(self, site: Site) -> None:
        """A cancelled `receive` ends, and the connection goes on."""
        for sender, receiver in await site.links():
            for number in range(5):
                receiving = asyncio.ensure_future(receiver.connection.receive())
                await turns(number)
                assert await cancelled(receiving, self.patience) == []
            await sender.send(b"something")
            assert await receiver.read(1) == [b"something"]

    @remedy(
        "Do not let a cancelled write end the connection before what was sent earlier has gone."
    )
    async def test_a_cancelled_send(self, site: Site) -> None:
        """Of a cancelled `send` the message arrives or not, and those before do."""

        async def check(sender: End, receiver: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            flood.task.cancel()
            await asyncio.wait([flood.task], timeout=self.patience)
            assert flood.task.cancelled(), "cancelling a send that waits has no effect"
            _, got = await asyncio.gather(sender.aclose(), receiver.rest())
            assert flood.taken <= len(got) <= flood.taken + 1
            assert got == [numbered(number) for number in range(len(got))]
            await sender.rest()

        await site.each_way(check)

    @remedy("Write each message in one piece, or finish it in spite of the cancellation.")
    async def test_a_cancelled_send_of_a_batch(self, site: Site) -> None:
        """Of a cancelled `send` whole messages arrive, from the first one on."""
        for sender, receiver in await site.links():
            batch = [[numbered(number)] for number in range(BOUND // MESSAGE)]
            sending = asyncio.ensure_future(sender.connection.send(batch))
            await turns(3)
            sending.cancel()
            await asyncio.wait([sending], timeout=self.patience)
            assert sending.done(), "cancelling a send that waits has no effect"
            _, got = await asyncio.gather(sender.aclose(), receiver.rest())
            assert got == [numbered(number) for number in range(len(got))]

    @pytest.mark.parametrize("where", THREADS)
    @remedy("Answer `can_send_now` with no while anything is still queued.")
    async def test_sending_now(self, site: Site, where: str) -> None:
        """What `send_now` sends is in order with what `send` sends."""
        for sender, receiver in await site.links():
            connection, sent = sender.connection, list[bytes]()
            if not await THREADS[where](connection.can_send_now):
                pytest.skip(f"cannot send_now from {where}")
            for number in range(300):
                batch = [[b"%d" % number, b"."], [b"and", bytes(number)]]
                now = number % 3 and await THREADS[where](_send_now, connection, batch)
                if not now:
                    await sender.send_batch(batch)
                sent += [b"".join(segments) for segments in batch]
            assert await receiver.read(len(sent)) == sent

    @pytest.mark.parametrize("where", THREADS)
    @remedy("Queue the rest, have the loop write it, and answer `can_send_now` with no meanwhile.")
    async def test_sending_now_to_a_peer_that_does_not_receive(
        self, site: Site, where: str
    ) -> None:
        """What a peer does not take at once follows by itself; until then it may not be used."""

        async def check(sender: End, receiver: End) -> None:
            connection, count = sender.connection, 0
            if not await THREADS[where](connection.can_send_now):
                pytest.skip(f"cannot send_now from {where}")
            while await THREADS[where](_send_now, connection, [[numbered(count)]]):
                assert count * MESSAGE <= BOUND, "it can send without end"
                await turns(2)
                count += 1
            got = await receiver.read(count)
            assert got == [numbered(number) for number in range(count)]
            await site.until(connection.can_send_now, "the rest of a send_now")
            flood = Flood(sender)
            await flood.stalls()
            assert not await THREADS[where](connection.can_send_now)
            await flood.stop(receiver)

        await site.each_way(check)

    @pytest.mark.parametrize("where", THREADS)
    @remedy("Swallow the error of the write; note that the connection has ended.")
    async def test_sending_now_to_a_peer_that_is_gone(self, site: Site, where: str) -> None:
        """`send_now` to a peer that is gone is no error: `receive` tells."""
        for sender, receiver in await site.links():
            if not await THREADS[where](sender.connection.can_send_now):
                pytest.skip(f"cannot send_now from {where}")
            await receiver.aclose()
            for _ in range(3):
                await THREADS[where](_send_now, sender.connection, [[b"to nobody"]])
            with pytest.raises(ConnectionLost):
                await sender.receive()
            await THREADS[where](_send_now, sender.connection, [[b"to nobody"]])
