"""Watchers: what each one is told, whatever others do and however it waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from wool.abc import Left, Snapshot
from wool.testing._discovery.base import Base, Site, leaves_nothing
from wool.testing._kit import remedy, soon, turns


class Watching(Base):
    """Part of `DiscoverySuite`."""

    @remedy("Yield a Snapshot before anything else, an empty one if there are no workers.")
    async def test_the_first_event_is_a_snapshot(self, site: Site) -> None:
        """A watcher's first event is a Snapshot, also where there is nobody."""
        async with site.watch() as watcher:
            event = await watcher.next()
            assert isinstance(event, Snapshot)
            assert not event.workers, f"nobody was announced, but there are {event.workers}"

    @remedy(
        "Tell watchers of every worker that appears (Joined), changes (Changed) or goes (Left)."
    )
    async def test_a_worker_joins_changes_and_leaves(self, site: Site) -> None:
        """A watcher sees workers come, change and go."""
        worker = site.worker()
        async with site.watch() as watcher:
            await watcher.sees()
            async with site.announce(worker) as announcement:
                await watcher.sees(worker)
                for number in range(5):
                    worker = replace(worker, tags=frozenset({f"tag{number}"}))
                    await announcement.update(worker)
                    await watcher.sees(worker)
                gone = [event for event in watcher.view.events if isinstance(event, Left)]
                assert not gone, f"update() is told as {gone[0]!r} and so on, not as Changed"
            await watcher.sees()

    @remedy("Begin each watch with all workers there are, as they are now.")
    async def test_late_watchers(self, site: Site) -> None:
        """Who begins to watch later finds all who are there, as they have become."""
        early, late = site.workers(2)
        async with site.watch() as first, site.announce(early) as announcement:
            await first.sees(early)
            early = replace(early, tags=frozenset({"changed"}))
            await announcement.update(early)
            async with site.announce(late):
                await first.sees(early, late)
                async with site.watch() as second, site.watch(site.another()) as third:
                    await second.sees(early, late)
                    await third.sees(early, late)
            async with site.watch(site.another()) as fourth:
                await first.sees(early)
                await fourth.sees(early)

    @remedy("Give each call of watch() its own iterator, with its own queue of events.")
    async def test_watchers_do_not_share_events(self, site: Site) -> None:
        """Each watcher gets every event, whoever else watches and reads."""
        workers = site.workers(10)
        async with site.watch() as one, site.watch() as other, site.watch() as idle:
            assert one.events is not other.events, "two watches have the same iterator"
            await one.sees()
            await other.sees()
            async with site.announce_all(workers):
                await one.sees(*workers)
                await other.sees(*workers)
            await asyncio.gather(one.sees(), other.sees())
            await idle.sees()

    @remedy("Let leaving a watch end its own events only; count users of what watches share.")
    async def test_leaving_a_watch_ends_no_other(self, site: Site) -> None:
        """A watcher that leaves, read or unread, does not take others along."""
        first, second = site.workers(2)
        async with site.watch() as stays, site.announce(first):
            async with site.watch() as leaves, site.watch():
                await leaves.sees(first)
            await stays.sees(first)
            async with site.announce(second):
                await stays.sees(first, second)
                async with site.watch() as comes:
                    await comes.sees(first, second)

    @remedy(
        "Take an event off the queue only where nothing can be cancelled any more: wait first, "
        "then take without awaiting. An async generator ends when it is cancelled; write a class "
        "with __anext__."
    )
    async def test_cancelling_anext_loses_nothing(self, site: Site) -> None:
        """A cancelled `anext` loses no event, and the next one goes on."""
        workers = site.workers(20)
        async with site.watch() as watcher, site.announce_all(workers) as announcements:
            news = [replace(worker, tags=frozenset({"new"})) for worker in workers]
            for number, announcement in enumerate(announcements):
                reading = asyncio.ensure_future(anext(watcher.events))
                if number % 2:
                    await announcement.update(news[number])
                await turns(number % 5)
                if not number % 2:
                    await announcement.update(news[number])
                reading.cancel()
                await asyncio.wait([reading], timeout=self.patience)
                assert reading.done(), "a cancelled anext goes on"
                if not reading.cancelled():
                    watcher.view.note(reading.result())
            await watcher.sees(*news)
            await watcher.quiet(0)  # above, there may have been something to read each time
            await announcements[0].update(workers[0])
            await watcher.sees(workers[0], *news[1:])

    @remedy("On leaving, end the iteration with StopAsyncIteration, also for who is waiting.")
    async def test_leaving_while_somebody_waits(self, site: Site) -> None:
        """Leaving a watch ends its events: for a task that waits for one, and ever after."""
        async with site.watch() as watcher:
            await watcher.sees()
            waiting = asyncio.ensure_future(watcher.next())
            await turns(5)
            assert not waiting.done(), f"there was nothing to tell, but {waiting}"
        with pytest.raises(StopAsyncIteration):
            await soon(waiting, "anext of a watch that was left", self.patience)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await watcher.next()

    @remedy(
        "Keep a bounded queue for each watcher, or only which workers have changed; one that "
        "cannot take more gets a Snapshot in place of what it has missed."
    )
    async def test_a_watcher_that_does_not_keep_up(self, site: Site) -> None:
        """A watcher that takes no events holds up nobody, and sees the truth when it reads on."""
        stays, goes, changes = site.workers(3)
        async with site.watch() as slow, site.watch() as quick:
            async with site.announce(stays), site.announce(changes) as announcement:
                async with site.announce(goes):
                    await quick.sees(stays, goes, changes)
                    for number in range(300):
                        changes = replace(changes, tags=frozenset({str(number)}))
                        await announcement.update(changes)
                await quick.sees(stays, changes)
                await slow.sees(stays, changes)

    @remedy(
        "Make the namespace part of where, or under what name, workers are announced, and compare "
        "it as a whole: another one may begin with it."
    )
    async def test_namespaces_are_apart(self, site: Site) -> None:
        """Workers are found by watchers of their own namespace, and by no others."""
        other = Site(self, f"{site.namespace}-2")
        worker, stranger = site.worker(), other.worker()
        async with site.watch() as watcher, other.watch() as elsewhere:
            async with other.announce(stranger):
                await elsewhere.sees(stranger)
                async with site.announce(worker):
                    await watcher.sees(worker)
                    assert watcher.known().keys() == {worker.id}
                    async with site.watch(site.another()) as late:
                        await late.sees(worker)
            await elsewhere.sees()
            ids = {event.worker.id for event in watcher.view.events[1:]}  # type: ignore[union-attr]
            assert ids == {worker.id}, "a watcher was told of workers of another namespace"

    @remedy(
        "Keep nothing that belongs to an event loop in the discovery itself: make what a loop "
        "needs when it announces or watches for the first time."
    )
    async def test_several_event_loops(self, site: Site) -> None:
        """A discovery serves event loops in several threads at once: a pool and its workers."""
        ours, theirs = site.workers(2)
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()

        async def elsewhere() -> None:
            async with site.announce(theirs), site.watch() as watcher:
                await watcher.sees(ours, theirs)
                loop.call_soon_threadsafe(seen.set)
                await watcher.sees(theirs)

        async with site.watch() as watcher:
            async with site.announce(ours):
                thread = asyncio.ensure_future(asyncio.to_thread(asyncio.run, elsewhere()))
                await watcher.until(
                    lambda: {ours.id, theirs.id} <= watcher.known().keys(),
                    lambda: "know a worker that another event loop announces",
                )
                waiting = asyncio.ensure_future(seen.wait())
                await asyncio.wait([waiting, thread], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            await soon(thread, "an event loop in another thread", 3 * self.patience)
            await watcher.sees()

    @remedy("Undo in a `finally` what has been done so far, and await the tasks you cancel there.")
    @pytest.mark.parametrize("after", range(8))
    async def test_cancelling_at_any_time(self, site: Site, after: int) -> None:
        """Cancelled while it enters, who announces and watches leaves nothing behind."""
        worker = site.worker()

        async def use() -> None:
            async with site.announce(worker), site.watch() as watcher:
                await watcher.sees(worker)
                await asyncio.get_running_loop().create_future()

        using = asyncio.ensure_future(use())
        await turns(after)
        using.cancel()
        await asyncio.wait([using], timeout=self.patience)
        assert using.cancelled(), f"cancelled after {after} turns of the loop: {using}"
        async with site.watch() as watcher:
            await watcher.sees()

    @remedy("Close files and sockets, and end threads, with the last watch and announcement.")
    async def test_nothing_is_left(self, site: Site) -> None:
        """Watches and announcements that have been left leave no descriptors and no threads."""

        async def use() -> None:
            worker = site.worker()
            async with site.watch() as watcher, site.announce(worker):
                await watcher.sees(worker)

        await leaves_nothing(use, self.patience)
