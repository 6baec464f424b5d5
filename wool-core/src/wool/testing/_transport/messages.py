"""Messages arrive whole, in order and unchanged, up to a size that each side sets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from wool.abc import Buffer, Connection, MessageTooLarge
from wool.testing._kit import compare, remedy, soon
from wool.testing._transport.base import Base, End, Site, chance

KIB = 1 << 10
MIB = 1 << 20
SIZES = (0, 1, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 256 * KIB)


def noise(size: int) -> bytes:
    """Data in which a piece that is missing or misplaced shows."""
    return chance(size).randbytes(size)


def pieces(data: bytes, count: int) -> list[Buffer]:
    """The data as `count` segments of all types, some of them empty."""
    kinds = (bytes, bytearray, memoryview)
    luck = chance(len(data))
    cuts = [0, *sorted(luck.randint(0, len(data)) for _ in range(count - 1)), len(data)]
    return [
        kinds[n % 3](data[start:end]) for n, (start, end) in enumerate(itertools.pairwise(cuts))
    ]


class Messages(Base):
    """Part of `TransportSuite`."""

    @remedy("Frame messages by their length, and accept empty ones.")
    async def test_sizes(self, site: Site) -> None:
        """Messages of all sizes arrive as they are, alone and in one batch."""
        sent = [noise(size) for size in SIZES]
        for sender, receiver in await site.links():
            for message in sent:
                await sender.send(message)
                compare(await receiver.read(1), [message])
            _, got = await asyncio.gather(sender.send(*sent), receiver.read(len(sent)))
            compare(got, sent)

    @remedy("Set the limits of the library above `max_message_size`, on both sides.")
    async def test_the_largest_message(self, site: Site) -> None:
        """`max_message_size` means what it says, and is at least 512 KiB."""
        for sender, receiver in await site.links():
            largest = sender.connection.max_message_size
            assert largest >= 512 * KIB
            message = noise(min(largest, 64 * MIB))
            sending = sender.send(message, b"next")
            _, got = await asyncio.gather(sending, receiver.read(2))
            compare(got, [message, b"next"])

    @remedy("Check the sizes of all messages before you send the first one.")
    async def test_a_message_that_is_too_large(self, site: Site) -> None:
        """`MessageTooLarge` sends none of the batch, and the connection goes on."""
        for sender, receiver in await site.links():
            piece = bytes(MIB)
            too_large = [piece] * (sender.connection.max_message_size // MIB) + [piece]
            for batch in ([[b"none"], too_large], [too_large, [b"of"]], [[b"it"], too_large, []]):
                with pytest.raises(MessageTooLarge):
                    await sender.send_batch(batch)
            await sender.send(b"this")
            assert await receiver.read(1) == [b"this"]

    @remedy("Use one queue in each direction.")
    async def test_order(self, site: Site) -> None:
        """Messages arrive in order, in single messages and in batches of all lengths."""
        sent = [b"%d" % number for number in range(3000)]

        async def send(sender: End) -> None:
            rest, luck = sent, chance(1)
            while rest:
                count = luck.choice((1, 1, 2, 3, 30, 300))
                await sender.send(*rest[:count])
                rest = rest[count:]

        for sender, receiver in await site.links():
            _, got = await asyncio.gather(send(sender), receiver.read(len(sent)))
            compare(got, sent)

    @remedy(
        "Join segments, or write them one after the other; mind views of other items than bytes."
    )
    async def test_segments(self, site: Site) -> None:
        """A message is the concatenation of its segments, whatever buffers they are."""
        for sender, receiver in await site.links():
            sent = [noise(size) for size in (*SIZES, 3, 17)]
            batch = [pieces(data, count) for data in sent for count in (1, 2, 3, 40)]
            _, got = await asyncio.gather(
                sender.send_batch([*batch, [], [b"", b""], (b"tu", b"ple")]),
                receiver.read(len(batch) + 3),
            )
            compare(got, [*(data for data in sent for _ in range(4)), b"", b"", b"tuple"])

    @remedy("Send nothing for it, and never return an empty sequence from `receive`.")
    async def test_an_empty_batch(self, site: Site) -> None:
        """An empty batch is no message."""
        for sender, receiver in await site.links():
            await sender.send_batch([])
            await sender.send(b"one")
            await sender.send_batch([])
            assert await receiver.read(1) == [b"one"]

    @remedy("Let reading and writing have their own tasks or callbacks.")
    async def test_both_ways_at_once(self, site: Site) -> None:
        """Both directions are used at once, and neither waits for the other."""
        ours, theirs = await site.link()
        sent = [noise(64 * KIB + number) for number in range(100)]

        async def send(end: int) -> None:
            for message in sent:
                await (ours, theirs)[end].send(message)

        got = await asyncio.gather(ours.read(100), theirs.read(100), send(0), send(1))
        compare(got[0], sent)
        compare(got[1], sent)

    @remedy("Copy out of buffers that you use again, or give them away.")
    async def test_what_is_received_is_not_touched_again(self, site: Site) -> None:
        """What `receive` has returned, buffers and sequence, is not touched again."""
        for sender, receiver in await site.links():
            results: list[tuple[list[bytes], Sequence[bytes | memoryview]]] = []
            for number in range(60):
                await sender.send(noise(10 * number), noise(4000 + number), noise(70_000))
                count = 0
                while count < 3:
                    receiving = receiver.connection.receive()
                    got = await soon(receiving, "receive", self.patience)
                    results.append(([bytes(message) for message in got], got))
                    count += len(got)
            changed = [copies for copies, got in results if list(map(bytes, got)) != copies]
            assert not changed, "what receive returned has changed since"

    @remedy("Copy what is still queued when `send` returns, or let it wait; release views.")
    async def test_what_was_sent_is_not_kept(self, site: Site) -> None:
        """Whoever sends may change its buffers, and their size, when `send` has returned."""

        async def send(connection: Connection, data: bytearray) -> None:
            await connection.send([[data, memoryview(data)]] * 3)
            data[:] = bytes(len(data))
            data.clear()

        for sender, receiver in await site.links():
            for size in (10, 4096, 100_000, 256 * KIB):
                sending = send(sender.connection, bytearray(noise(size)))
                await soon(sending, "send", self.patience)
                compare(await receiver.read(3), [noise(size) * 2] * 3)

    @remedy("Compare the announced length with `receive_limit` before you read or allocate.")
    async def test_what_a_stranger_may_send(self, site: Site) -> None:
        """At first messages of 4096 bytes are accepted; a larger one ends the connection."""
        for dialler_sends in (True, False):
            ends = await site.link(strangers=True)
            sender, receiver = ends if dialler_sends else ends[::-1]
            assert receiver.connection.receive_limit == 4096
            largest = noise(4096)
            await sender.send(*[largest] * 10)
            compare(await receiver.read(10), [largest] * 10)
            await sender.send(noise(4097))
            assert await receiver.rest() == []
            assert await sender.rest() == []

    @remedy("Read `receive_limit` for each message; do not hand it to the library once for all.")
    async def test_a_limit_that_is_raised(self, site: Site) -> None:
        """A limit that is raised holds from then on, for this connection and this direction."""
        ours, theirs = await site.link(strangers=True)
        others = await site.link(strangers=True)
        theirs.connection.receive_limit = 100_000
        await ours.send(noise(100_000), noise(99_999))
        compare(await theirs.read(2), [noise(100_000), noise(99_999)])
        assert [end.connection.receive_limit for end in (ours, *others)] == [4096] * 3
        await theirs.send(noise(4096))
        compare(await ours.read(1), [noise(4096)])
        await ours.send(noise(100_001))
        assert await theirs.rest() == []
        await others[0].send(b"alive")
        assert await others[1].read(1) == [b"alive"]
