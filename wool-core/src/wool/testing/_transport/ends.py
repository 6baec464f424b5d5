"""How connections end, and what arrives before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wool.abc import Connection, ConnectionLost
from wool.testing._kit import soon, turns
from wool.testing._transport.base import Base, End, Site
from wool.testing._transport.flow import Flood, numbered


async def lost(task: asyncio.Future[Any], what: str, seconds: float) -> None:
    """Checks that something that waits is told that the connection has ended."""
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        pytest.fail(f"{what} still waits after {seconds:g} s")
    with pytest.raises(ConnectionLost):
        task.result()


def known(end: End) -> None:
    """Checks what a connection tells."""
    extra, absent = end.connection.extra, object()
    assert extra("no such attribute") is None
    assert extra("no such attribute", absent) is absent
    for attribute, kind in {"peer": str, "uid": int, "same_host": bool}.items():
        value = extra(attribute, absent)
        assert value is absent or isinstance(value, kind), f"{attribute} is {value!r}"
        assert extra(attribute) == (None if value is absent else value)


class Ends(Base):
    """Part of `TransportSuite`."""

    async def test_what_was_sent_before_closing(self, site: Site) -> None:
        """Arrives; and then nothing, again and again."""
        sent = [b"%d" % number for number in range(50)]

        async def send_and_close(connection: Connection) -> None:
            await connection.send([[message] for message in sent])
            await connection.aclose()

        for closing, other in await site.links():
            await soon(send_and_close(closing.connection), "aclose", self.patience)
            assert await other.rest() == sent
            assert await closing.rest() == []

    async def test_what_is_queued_at_closing(self, site: Site) -> None:
        """All that `send` has taken gets to a peer that begins to receive."""

        async def check(closing: End, other: End) -> None:
            flood = Flood(closing)
            await flood.stalls()
            taken = flood.taken
            _, got = await asyncio.gather(closing.aclose(), other.rest())
            assert len(got) >= taken, "messages are lost"
            assert got == [numbered(number) for number in range(len(got))]
            await asyncio.gather(flood.task, return_exceptions=True)

        await site.each_way(check)

    async def test_closing_ends_what_waits(self, site: Site) -> None:
        """At both ends."""
        for closing, other in await site.links():
            own = asyncio.ensure_future(closing.connection.receive())
            peers = asyncio.ensure_future(other.connection.receive())
            await turns(5)
            await closing.aclose()
            await lost(own, "receive on a connection that was closed", self.patience)
            await lost(peers, "receive whose peer has closed", self.patience)

    async def test_closing_while_the_peer_takes_nothing(self, site: Site) -> None:
        """It is given up soon, and so is a `send` that waits."""

        async def check(closing: End, other: End) -> None:
            flood = Flood(closing)
            await flood.stalls()
            await closing.aclose()
            await lost(flood.task, "send on a connection that was closed", self.patience)

        await site.each_way(check)

    async def test_a_peer_that_closes_while_send_waits(self, site: Site) -> None:
        """Ends it."""

        async def check(sender: End, closing: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            receiving = asyncio.ensure_future(sender.connection.receive())
            await closing.aclose()
            await lost(flood.task, "send whose peer has closed", self.patience)
            await lost(receiving, "receive whose peer has closed", self.patience)
            await sender.rest()

        await site.each_way(check)

    async def test_closing_again(self, site: Site) -> None:
        """By several at once, at both ends at once, and once more."""
        for one, other in await site.links():
            receiving = asyncio.ensure_future(one.connection.receive())
            await turns(2)
            await asyncio.gather(*(end.aclose() for end in (one, other, one, other)))
            await lost(receiving, "receive on a connection that was closed", self.patience)
            for end in (one, other):
                await end.aclose()
                assert await end.rest() == []
                await end.aclose()

    async def test_closing_what_the_peer_has_closed(self, site: Site) -> None:
        for one, other in await site.links():
            await one.aclose()
            assert await other.rest() == []
            await other.aclose()
            await other.aclose()

    async def test_a_cancelled_close(self, site: Site) -> None:
        """Leaves a connection that can be closed."""

        async def check(closing: End, other: End) -> None:
            flood = Flood(closing)
            await flood.stalls()
            attempt = asyncio.ensure_future(closing.connection.aclose())
            await turns(2)
            attempt.cancel()
            await asyncio.wait([attempt], timeout=self.patience)
            assert attempt.done(), "cancelling aclose has no effect"
            await closing.aclose()
            await lost(flood.task, "send on a connection that was closed", self.patience)
            await other.rest()

        await site.each_way(check)

    async def test_closing_with_messages_that_nobody_has_received(self, site: Site) -> None:
        """They are dropped or can be received still, but the end comes."""
        for sender, closing in await site.links():
            await sender.send(b"one")
            assert await closing.read(1) == [b"one"]
            await sender.send(b"two", b"three")
            await closing.aclose()
            assert await closing.rest() in ([], [b"two"], [b"two", b"three"])
            assert await sender.rest() == []

    async def test_what_is_known(self, site: Site) -> None:
        """Attributes have their types; what is unknown is the default, also after the end."""
        ends = await site.link()
        for end in ends:
            known(end)
        await ends[0].aclose()
        await ends[1].rest()
        for end in ends:
            known(end)
