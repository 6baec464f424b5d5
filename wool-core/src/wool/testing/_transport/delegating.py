"""What arrives is read on the thread of another loop, if a transport offers that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from wool.abc import Connection, ConnectionLost
from wool.testing._kit import cancelled, chance, compare, remedy, soon, turns, until

if TYPE_CHECKING:
    from wool.testing.transport import End, Site


class Elsewhere:
    """A loop that runs on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._freed = threading.Event()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def block(self) -> None:
        """Has the thread do something else until it is freed."""
        blocked = threading.Event()

        def wait() -> None:
            blocked.set()
            self._freed.wait()

        self._freed.clear()
        self.loop.call_soon_threadsafe(wait)
        await asyncio.to_thread(blocked.wait)

    def let(self) -> None:
        """Lets it go on."""
        self._freed.set()

    async def free(self) -> None:
        """Lets it go on; returns when it has done what it was told before."""
        self.let()
        done = threading.Event()
        self.loop.call_soon_threadsafe(done.set)
        await asyncio.to_thread(done.wait)

    async def close(self) -> None:
        await self.free()
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._thread


@asynccontextmanager
async def elsewhere() -> AsyncGenerator[Elsewhere, None]:
    """Another loop, on another thread."""
    other = Elsewhere()
    try:
        yield other
    finally:
        await other.close()


class Split:
    """Pumps a connection, and has it delegated; notes what is given where.

    Attributes:
        messages: all that was given.
        there: how many of them the other thread has taken.
    """

    def __init__(self, connection: Connection, other: Elsewhere) -> None:
        self.messages: list[bytes] = []
        self.there = 0
        self._connection = connection
        self._other = other
        self._busy = threading.Lock()
        self._luck = chance(7)
        self.choosy = False
        """Whether some messages are not taken by the other thread."""
        self.pumping = asyncio.ensure_future(connection.pump(self._take))

    async def given(self, count: int, seconds: float) -> None:
        """Waits until so many messages have been given."""
        await until(lambda: len(self.messages) >= count, f"giving {count} messages", seconds)

    def delegate(self) -> bool:
        return self._connection.delegate(self._other.loop, self._take_there)

    def _take(self, messages: Sequence[bytes | memoryview]) -> None:
        assert self._busy.acquire(blocking=False), "both threads are given messages at once"
        assert not self._other.is_here, "pump gives messages on the other thread"
        self.messages += [bytes(message) for message in messages]
        self._busy.release()

    def _take_there(self, messages: Sequence[bytes | memoryview]) -> int:
        assert self._busy.acquire(blocking=False), "both threads are given messages at once"
        assert self._other.is_here, "what was delegated is given on another thread"
        assert messages, "nothing was given"
        count = len(messages)
        if self.choosy:
            count = self._luck.choice((count, count, count, count // 2, 0))
        self.messages += [bytes(message) for message in messages[:count]]
        self.there += count
        self._busy.release()
        return count


async def split(receiver: End, other: Elsewhere, *, again: bool = False) -> Split:
    """Delegates what an end receives; skips the test if that is not possible.

    Args:
        again: whether it was possible before.
    """
    halves = Split(receiver.connection, other)
    await turns(3)
    assert not receiver.connection.delegated, "nobody has delegated it"
    if again:  # which may take until the other thread has done with the last time
        await until(halves.delegate, "delegating once more", receiver.patience)
    elif not halves.delegate():
        await cancelled(halves.pumping, "pump", receiver.patience)
        pytest.skip("cannot delegate")
    assert receiver.connection.delegated, "it has just been delegated"
    return halves


class Delegating:
    """Part of `TransportSuite`."""

    patience: float

    @remedy("Stop to read before you delegate; call `take` on the loop that you are given.")
    async def test_delegating(self, site: Site) -> None:
        """What arrives is given on the other loop's thread, as long as it is taken there."""
        async with elsewhere() as other:
            for sender, receiver in await site.links():
                halves = await split(receiver, other)
                for number in range(100):
                    await sender.send(b"%d" % number, b"and more")
                    await halves.given(2 * number + 2, self.patience)
                    if not halves.there:  # that thread may not have come to it in time
                        halves.delegate()
                        await other.free()  # it has heard of it by now
                assert halves.there, "nothing was given on the other thread"
                await cancelled(halves.pumping, "pump", self.patience)

    @remedy("Give what was not taken to `pump`, first of all; then read on.")
    async def test_delegating_again_and_again(self, site: Site) -> None:
        """Whatever is taken by whom: each message is given once, in order."""
        async with elsewhere() as other:
            for sender, receiver in await site.links():
                halves, luck, sent = await split(receiver, other), chance(5), list[bytes]()
                halves.choosy = True
                for number in range(200):
                    batch = [
                        b"%d," % number * luck.choice((1, 1, 1, 9, 9000, 90_000))
                        for _ in range(luck.choice((1, 1, 2, 30)))
                    ]
                    await sender.send(*batch)
                    sent += batch
                    if number % 3 == 0:
                        await halves.given(len(sent), self.patience)
                    halves.delegate()
                await halves.given(len(sent), self.patience)
                await cancelled(halves.pumping, "pump", self.patience)
                compare(halves.messages, sent)

    @remedy("Look now and then whether something waits to be read, and read it.")
    async def test_delegating_to_a_thread_that_is_busy(self, site: Site) -> None:
        """What arrives meanwhile is given to `pump`, and stays its own."""
        async with elsewhere() as other:
            for sender, receiver in await site.links():
                halves = await split(receiver, other)
                await sender.send(b"before")
                await halves.given(1, self.patience)
                count = halves.there
                await other.block()
                for number in range(3):
                    await sender.send(b"%d" % number)
                    await halves.given(number + 2, self.patience)
                await other.free()
                await sender.send(b"after")
                await halves.given(5, self.patience)
                assert not receiver.connection.delegated, "it has been taken back"
                assert halves.messages == [b"before", b"0", b"1", b"2", b"after"]
                assert halves.there == count, "taken by a thread that was busy"
                await cancelled(halves.pumping, "pump", self.patience)

    @remedy("Take the reading back before `pump` ends; keep what was not taken.")
    async def test_a_delegation_ends_with_its_pump(self, site: Site) -> None:
        """Whenever `pump` is cancelled, nothing is lost, nor given to the other thread any more."""
        async with elsewhere() as other:
            for sender, receiver in await site.links():
                luck, sent, got = chance(11), list[bytes](), list[bytes]()
                for number in range(100):
                    halves = await split(receiver, other, again=number > 0)
                    batch = [b"%d" % number] * luck.choice((1, 2, 40))
                    sending = asyncio.ensure_future(sender.send(*batch))
                    sent += batch
                    await turns(luck.randrange(12))
                    await cancelled(halves.pumping, "pump", self.patience)
                    got += halves.messages
                    await sending
                    if len(got) < len(sent):
                        got += await receiver.read(len(sent) - len(got))
                compare(got, sent)

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    @remedy("Close what the other thread reads from, or shut it down if that thread is busy.")
    async def test_closing_what_is_delegated(self, site: Site, busy: bool) -> None:
        """Whichever side closes: `pump` ends with `ConnectionLost`, and the peer sees the end."""
        async with elsewhere() as other:
            for number, (sender, receiver) in enumerate([*await site.links(), *await site.links()]):
                halves = await split(receiver, other)
                await sender.send(b"the last")
                await halves.given(1, self.patience)
                if busy:
                    await other.block()
                await (sender if number < 2 else receiver).aclose()
                with pytest.raises(ConnectionLost):
                    await soon(halves.pumping, "pump of what is delegated", self.patience)
                await soon(sender.rest(), "receiving from a peer that has closed", self.patience)
                await other.free()
                assert halves.messages == [b"the last"]
