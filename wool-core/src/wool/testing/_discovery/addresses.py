"""The conformance kit of discoveries that know addresses, and nothing else of workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from wool.abc import Discovery, Snapshot, WorkerInfo
from wool.testing._discovery.base import held, leaves_nothing, tidy
from wool.testing._discovery.events import Watcher
from wool.testing._kit import remedy, soon, turns


class AddressChecks:
    """Part of `AddressDiscoverySuite`."""

    addresses: Sequence[str] = ("grpc://192.0.2.1:7000", "grpc://192.0.2.2:7000")
    patience: float = 10.0

    def discovery(self) -> Discovery:
        """Makes the discovery; called once for each test."""
        raise NotImplementedError("override discovery() to make the discovery that is tested")

    async def change(self, addresses: Sequence[str]) -> None:
        """Has it find other addresses; without it that is not tested."""
        pytest.skip("change() is not overridden")

    @pytest_asyncio.fixture(loop_scope="function")
    async def subject(self, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Discovery]:
        """The discovery; besides, tests must leave no tasks behind and log nothing that alarms."""
        async with tidy(caplog, self.patience):
            yield self.discovery()

    @asynccontextmanager
    async def watching(self, discovery: Discovery) -> AsyncGenerator[Watcher]:
        """Watches while the context is open."""
        async with held(discovery.watch(), "a watch", self.patience) as events:
            yield Watcher(events, set(), self.patience)

    def workers(self, addresses: Sequence[str] | None = None) -> list[WorkerInfo]:
        """What a watcher is to know."""
        chosen = self.addresses if addresses is None else addresses
        return [WorkerInfo(address=address) for address in chosen]

    @remedy("Yield a Snapshot of WorkerInfos that have an address, and no other field.")
    async def test_the_first_event_is_a_snapshot(self, subject: Discovery) -> None:
        """A watcher's first event is a Snapshot of all addresses."""
        async with self.watching(subject) as watcher:
            event = await watcher.next()
            assert isinstance(event, Snapshot)
            await watcher.sees(*self.workers())

    @remedy("Tell watchers when there are others, for instance with another Snapshot.")
    async def test_addresses_change(self, subject: Discovery) -> None:
        """Addresses that come and go are told, also to who comes late, and if all are gone."""
        async with self.watching(subject) as watcher, self.watching(subject) as other:
            await watcher.sees(*self.workers())
            for addresses in (self.addresses[:1], (), self.addresses):
                await self.change(addresses)
                await watcher.sees(*self.workers(addresses))
                async with self.watching(subject) as late:
                    await late.sees(*self.workers(addresses))
            await other.sees(*self.workers())

    @remedy("Give each call of watch() its own iterator.")
    async def test_watchers_do_not_share_events(self, subject: Discovery) -> None:
        """Each watcher gets its own Snapshot, and leaves alone."""
        async with self.watching(subject) as one:
            async with self.watching(subject) as other:
                assert one.events is not other.events, "two watches have the same iterator"
                await one.sees(*self.workers())
                await other.sees(*self.workers())
            waiting = asyncio.ensure_future(one.next())
            await turns(10)
            assert not waiting.done(), f"there was nothing to tell, but {waiting}"
        with pytest.raises(StopAsyncIteration):
            await soon(waiting, "anext of a watch that was left", self.patience)

    @remedy("Write a class with __anext__: an async generator ends when it is cancelled.")
    @pytest.mark.parametrize("after", range(4))
    async def test_cancelling_anext_loses_nothing(self, subject: Discovery, after: int) -> None:
        """A cancelled `anext` loses no event, and the next one goes on."""
        async with self.watching(subject) as watcher:
            for _ in range(3):
                reading = asyncio.ensure_future(anext(watcher.events))
                await turns(after)
                reading.cancel()
                await asyncio.wait([reading], timeout=self.patience)
                assert reading.done(), "a cancelled anext goes on"
                if not reading.cancelled():
                    watcher.view.note(reading.result())
            await watcher.sees(*self.workers())

    @remedy("On leaving, end the iteration with StopAsyncIteration, also for who is waiting.")
    async def test_leaving_while_somebody_waits(self, subject: Discovery) -> None:
        """Leaving a watch ends its events: for a task that waits for one, and ever after."""
        async with self.watching(subject) as watcher:
            await watcher.sees(*self.workers())
            waiting = asyncio.ensure_future(watcher.next())
            await turns(5)
        with pytest.raises(StopAsyncIteration):
            await soon(waiting, "anext of a watch that was left", self.patience)
        with pytest.raises(StopAsyncIteration):
            await watcher.next()

    @remedy("Accept announcements, and do nothing with them: the list is kept by somebody else.")
    async def test_announcing_does_no_harm(self, subject: Discovery) -> None:
        """A worker may be announced, though nobody is told."""
        worker = WorkerInfo(id="w", address="grpc://192.0.2.9:7000")
        async with self.watching(subject) as watcher:
            async with held(subject.announce(worker), "an announcement", 10) as announcement:
                await announcement.update(worker)
                await watcher.sees(*self.workers())

    @remedy("Keep nothing that belongs to an event loop in the discovery itself.")
    async def test_several_event_loops(self, subject: Discovery) -> None:
        """A discovery serves event loops in several threads at once."""

        async def elsewhere() -> None:
            async with self.watching(subject) as watcher:
                await watcher.sees(*self.workers())

        async with self.watching(subject) as watcher:
            await watcher.sees(*self.workers())
            thread = asyncio.to_thread(asyncio.run, elsewhere())
            await soon(thread, "an event loop in another thread", 3 * self.patience)

    @remedy("Close files and sockets, and end threads, with the watch that needed them.")
    async def test_nothing_is_left(self, subject: Discovery) -> None:
        """Watches that have been left leave no descriptors and no threads, read or unread."""

        async def use() -> None:
            async with self.watching(subject) as watcher, self.watching(subject):
                await watcher.sees(*self.workers())

        await leaves_nothing(use, self.patience)
