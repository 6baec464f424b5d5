"""Being given what arrives, instead of asking for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from wool.abc import Connection
from wool.testing._kit import compare, remedy, soon, turns
from wool.testing._transport.base import Base, End, Site, chance
from wool.testing._transport.ends import lost
from wool.testing._transport.flow import Flood, numbered


class Bucket:
    """Takes what is pumped into it."""

    def __init__(self, connection: Connection) -> None:
        self.messages: list[bytes] = []
        self.pumping = asyncio.ensure_future(connection.pump(self.take))

    def take(self, messages: Sequence[bytes | memoryview]) -> None:
        assert messages, "nothing was given"
        self.messages += [bytes(message) for message in messages]


async def stopped(pumping: asyncio.Future[Any], seconds: float) -> None:
    """Cancels a `pump`."""
    pumping.cancel()
    await asyncio.wait([pumping], timeout=seconds)
    assert pumping.cancelled(), "a cancelled pump goes on"


class Pumping(Base):
    """Part of `TransportSuite`."""

    @remedy("Give what has arrived before as well, then each batch as it comes, then raise.")
    async def test_pumping(self, site: Site) -> None:
        """`pump` gives everything, from what has arrived before to what came before the end."""
        for sender, receiver in await site.links():
            await sender.send(b"first")
            await sender.send(b"early", b"and more")
            received = await receiver.receive()
            bucket = Bucket(receiver.connection)
            sent = [b"late"] + [b"%d" % number * (1 + number % 3 * 9000) for number in range(99)]
            for message in sent:
                await sender.send(message)
                await turns(len(message) % 3)
            await sender.aclose()
            await lost(bucket.pumping, "pump whose peer has closed", self.patience)
            compare(received + bucket.messages, [b"first", b"early", b"and more", *sent])
            assert await receiver.rest() == []

    @remedy("Let what has not been given stay where `receive` and the next `pump` look for it.")
    async def test_a_cancelled_pump(self, site: Site) -> None:
        """A cancelled `pump` loses nothing, whenever the cancel comes."""
        for sender, receiver in await site.links():
            luck, sent, got = chance(3), list[bytes](), list[bytes]()
            for number in range(200):
                bucket = Bucket(receiver.connection)
                await turns(luck.randrange(4))
                batch = [
                    b"%d," % number * luck.choice((1, 1, 1, 120_000)) for _ in range(1 + number % 2)
                ]
                sending = asyncio.ensure_future(sender.send(*batch))
                sent += batch
                await turns(luck.randrange(16))
                await stopped(bucket.pumping, self.patience)
                got += bucket.messages
                await sending
                if number % 3 and len(got) < len(sent):
                    got += await receiver.read(len(sent) - len(got))
            if len(got) < len(sent):
                got += await receiver.read(len(sent) - len(got))
            compare(got, sent)

    @remedy("Pass on what `take` raises, and leave the connection as it is.")
    async def test_what_taking_raises(self, site: Site) -> None:
        """Ends `pump`, even one that is being cancelled, and nothing else."""

        def refuse(cancelling: bool, messages: Sequence[bytes | memoryview]) -> None:
            if cancelling:
                pumping.cancel()
            raise LookupError("no use for this")

        links = await site.links()
        for cancelling, (sender, receiver) in itertools.product((False, True), links):
            pumping = asyncio.ensure_future(receiver.connection.pump(partial(refuse, cancelling)))
            await turns(3)
            await sender.send(b"of no use")
            with pytest.raises(LookupError, match="no use for this"):
                await soon(pumping, "pump that has nobody to give to", self.patience)
            await sender.send(b"of use")
            assert await receiver.read(1) == [b"of use"]
            await receiver.send(b"an answer")
            assert await sender.read(1) == [b"an answer"]

    @remedy("Wake who waits when the connection ends, whichever side ends it.")
    async def test_closing_ends_a_pump(self, site: Site) -> None:
        """`aclose` ends a `pump`, and later ones, with `ConnectionLost`."""
        for closing, _ in await site.links():
            bucket = Bucket(closing.connection)
            await turns(3)
            await closing.aclose()
            await lost(bucket.pumping, "pump on a connection that was closed", self.patience)
            again = Bucket(closing.connection)
            await lost(again.pumping, "pump on a connection that is closed", self.patience)
            assert bucket.messages == again.messages == []

    @remedy("Go on reading where `receive` had stopped, as there was too much that waited.")
    async def test_pumping_after_a_flood(self, site: Site) -> None:
        """What has been held back for a receiver that did not receive is given."""

        async def check(sender: End, receiver: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            flood.ebb()
            bucket = Bucket(receiver.connection)
            await soon(flood.task, "send to a peer that pumps", self.patience)
            await site.until(
                lambda: len(bucket.messages) >= flood.taken, "what was sent to be given"
            )
            await stopped(bucket.pumping, self.patience)
            compare(bucket.messages, [numbered(number) for number in range(flood.taken)])

        await site.each_way(check)
