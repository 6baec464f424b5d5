"""How connections end, and what arrives before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wool.abc import Connection, ConnectionLost
from wool.testing._kit import compare, remedy, soon, turns
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

    @remedy(
        "Send what is queued before you close, and return all that has arrived before you raise."
    )
    async def test_what_was_sent_before_closing(self, site: Site) -> None:
        """What was sent before `aclose` arrives; then `receive` raises `ConnectionLost`."""
        sent = [b"%d" % number for number in range(50)]

        async def send_and_close(connection: Connection) -> None:
            await connection.send([[message] for message in sent])
            await connection.aclose()

        for closing, other in await site.links():
            await soon(send_and_close(closing.connection), "aclose", self.patience)
            compare(await other.rest(), sent)
            assert await closing.rest() == []

    @remedy("Let `aclose` wait, for a while, until the peer has taken what is queued.")
    async def test_what_is_queued_at_closing(self, site: Site) -> None:
        """All that `send` has taken gets to a peer that begins to receive only then."""

        async def check(closing: End, other: End) -> None:
            flood = Flood(closing)
            await flood.stalls()
            taken = flood.taken
            _, got = await asyncio.gather(closing.aclose(), other.rest())
            assert len(got) >= taken, "messages are lost"
            assert got == [numbered(number) for number in range(len(got))]
            await asyncio.gather(flood.task, return_exceptions=True)

        await site.each_way(check)

    @remedy("Wake who waits when the connection ends, whichever side ends it.")
    async def test_closing_ends_what_waits(self, site: Site) -> None:
        """`aclose` ends a `receive` that waits, at both ends, with `ConnectionLost`."""
        for closing, other in await site.links():
            own = asyncio.ensure_future(closing.connection.receive())
            peers = asyncio.ensure_future(other.connection.receive())
            await turns(5)
            await closing.aclose()
            await lost(own, "receive on a connection that was closed", self.patience)
            await lost(peers, "receive whose peer has closed", self.patience)

    @remedy("Bound the time that `aclose` waits for the peer, and abort the connection then.")
    async def test_closing_while_the_peer_takes_nothing(self, site: Site) -> None:
        """A peer that takes nothing is given up soon, and so is a `send` that waits."""

        async def check(closing: End, other: End) -> None:
            flood = Flood(closing)
            await flood.stalls()
            await closing.aclose()
            await lost(flood.task, "send on a connection that was closed", self.patience)

        await site.each_way(check)

    @remedy("Watch for the end of the connection while `send` waits for room.")
    async def test_a_peer_that_closes_while_send_waits(self, site: Site) -> None:
        """A `send` that waits raises `ConnectionLost` when the peer closes."""

        async def check(sender: End, closing: End) -> None:
            flood = Flood(sender)
            await flood.stalls()
            receiving = asyncio.ensure_future(sender.connection.receive())
            await closing.aclose()
            await lost(flood.task, "send whose peer has closed", self.patience)
            await lost(receiving, "receive whose peer has closed", self.patience)
            await sender.rest()

        await site.each_way(check)

    @remedy("Do the work in the first call, and let the others wait for it.")
    async def test_closing_again(self, site: Site) -> None:
        """`aclose` may be called by several at once, at both ends at once, and once more."""
        for one, other in await site.links():
            receiving = asyncio.ensure_future(one.connection.receive())
            await turns(2)
            await asyncio.gather(*(end.aclose() for end in (one, other, one, other)))
            await lost(receiving, "receive on a connection that was closed", self.patience)
            for end in (one, other):
                await end.aclose()
                assert await end.rest() == []
                await end.aclose()

    @remedy("Do not let `aclose` fail because there is nobody to say goodbye to.")
    async def test_closing_what_the_peer_has_closed(self, site: Site) -> None:
        """A connection that the peer has closed can be closed as well, and has ended."""
        for one, other in await site.links():
            await one.aclose()
            assert await other.rest() == []
            await other.aclose()
            await other.aclose()

    @remedy(
        "Note that the connection is closing only where that can be repeated, or shield the work."
    )
    async def test_a_cancelled_close(self, site: Site) -> None:
        """A cancelled `aclose` leaves a connection that can be closed."""

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

    @remedy("Do not wait in `aclose` for the application to take what has arrived.")
    async def test_closing_with_messages_that_nobody_has_received(self, site: Site) -> None:
        """Messages that nobody has received are dropped or still arrive; the end comes."""
        for sender, closing in await site.links():
            await sender.send(b"one")
            assert await closing.read(1) == [b"one"]
            await sender.send(b"two", b"three")
            await closing.aclose()
            assert await closing.rest() in ([], [b"two"], [b"two", b"three"])
            assert await sender.rest() == []

    @remedy("Keep what `extra` tells when the connection is made; do not ask the socket later.")
    async def test_what_is_known(self, site: Site) -> None:
        """`extra` returns values of the right types, or the default, also after the end."""
        ends = await site.link()
        for end in ends:
            known(end)
        await ends[0].aclose()
        await ends[1].rest()
        for end in ends:
            known(end)
