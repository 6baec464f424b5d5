"""Discoveries with one defect each: the conformance kits find them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unit.sound_discovery import FolderAnnouncement, FolderDiscovery, FolderWatch
from wool import abc
from wool._watching import Watch
from wool.abc import Discovery
from wool.testing import AddressDiscoverySuite, DiscoverySuite


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class Broken(DiscoverySuite):
    """The sound discovery, with some of its parts replaced.

    Attributes:
        caught_by: tests that must fail, or whose end must: `"end of test_…"`.
    """

    gone_within = 0.6
    patience = 1.0
    runs = 5
    caught_by: tuple[str, ...] = ()
    Announcement: type[FolderAnnouncement] = FolderAnnouncement
    Watch: type[FolderWatch] = FolderWatch
    Discovery: type[FolderDiscovery] = FolderDiscovery

    def discovery(self, namespace: str) -> Discovery:
        if not hasattr(self, "watches"):
            self.watches: list[FolderWatch] = []
        discovery = self.Discovery(namespace, self.watches)
        discovery.Announcement, discovery.Watch = self.Announcement, self.Watch  # type: ignore[misc]
        return discovery

    async def disturb(self) -> None:
        for watch in self.watches:
            await watch.restart()


class TestFolder(Broken):
    """What the broken ones are made of is sound."""

    gone_within = 4.0
    patience = 10.0


# Watchers are told wrong things, nothing, or what others should be told -----------------------


class TestForgetsWhoWasThereBefore(Broken):
    caught_by = ("test_late_watchers",)

    class Watch(FolderWatch):
        def put(self, event: Any) -> None:
            super().put(abc.Snapshot([]) if isinstance(event, abc.Snapshot) else event)


class TestSharesIterators(Broken):
    caught_by = ("test_watches_are_apart",)

    class Discovery(FolderDiscovery):
        users = 0
        common: Any = None

        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            self.users += 1
            self.common = self.common or self.Watch(self.folder)
            try:
                yield self.common
            finally:
                self.users -= 1
                if not self.users:
                    await self.common.aclose()
                    self.common = None


class TestLetsReadersWaitForEver(Broken):
    caught_by = ("test_leaving_a_watch",)

    class Watch(FolderWatch):
        async def aclose(self) -> None:
            self.task.cancel()
            await asyncio.wait([self.task])


class TestEndsAllWatchesWithOne(Broken):
    caught_by = ("test_watches_are_apart",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            async with super().watch() as watch:
                yield watch
                for other in self.watches:
                    await other.aclose()


class TestDropsWhatDoesNotFit(Broken):
    caught_by = ("test_a_watcher_that_does_not_keep_up",)

    class Watch(FolderWatch):
        def put(self, event: Any) -> None:
            if len(self.queue) < 2:
                super().put(event)


class TestKnowsOneNamespace(Broken):
    caught_by = ("test_namespaces_are_apart",)

    class Discovery(FolderDiscovery):
        def __init__(self, namespace: str, watches: Any) -> None:
            super().__init__("wool-broken-namespaces", watches)


class TestBelongsToItsFirstLoop(Broken):
    """As whoever makes tasks and locks of asyncio once for all."""

    caught_by = ("test_several_event_loops",)

    class Discovery(FolderDiscovery):
        loop: asyncio.AbstractEventLoop | None = None

        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            self.loop = self.loop or asyncio.get_running_loop()
            if asyncio.get_running_loop() is not self.loop:
                raise RuntimeError("is bound to a different event loop")
            async with super().watch() as watch:
                yield watch


class TestLeaksWhenCancelled(Broken):
    caught_by = ("end of test_cancelling_at_any_time",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            watch = self.Watch(self.folder)
            await asyncio.sleep(0)
            try:
                yield watch
            finally:
                await watch.aclose()


class TestLeaksThreads(Broken):
    caught_by = ("test_nothing_is_left",)

    class Watch(FolderWatch):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            import threading

            threading.Thread(target=threading.Event().wait, daemon=True).start()


class TestNeverRecovers(Broken):
    caught_by = ("test_a_disturbance",)

    class Watch(FolderWatch):
        async def restart(self) -> None:
            self.task.cancel()


# Workers are announced wrongly, or withdrawn too little, too much, too late -------------------


class TestForgetsKilledAnnouncers(Broken):
    """The files of the dead stay."""

    caught_by = ("test_an_announcer_that_is_killed",)

    class Watch(FolderWatch):
        def is_alive(self, path: Path) -> bool:
            return True


class TestResurrectsWorkers(Broken):
    """What renews an announcement does so once too often."""

    caught_by = ("test_who_has_left_stays_away",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            async with super().announce(worker) as announcement:
                yield announcement
            await asyncio.sleep(5 * 0.003)

            def renew() -> None:
                again = FolderAnnouncement(self.folder, worker)
                asyncio.get_running_loop().call_later(0.3, again.withdraw)

            asyncio.get_running_loop().call_later(0.1, renew)


class TestKeepsWhoseBodyFails(Broken):
    caught_by = ("test_leaving_withdraws[Boom]", "test_leaving_withdraws[CancelledError]")

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            announcement = self.Announcement(self.folder, worker)
            yield announcement
            announcement.withdraw()


class TestWithdrawsEverything(Broken):
    caught_by = ("test_leaving_withdraws[None]",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            async with super().announce(worker) as announcement:
                yield announcement
                for path in self.folder.glob("*.json"):
                    path.unlink()


class TestStaysWithinItsProcess(Broken):
    caught_by = ("test_an_announcer_that_is_killed",)

    class Discovery(FolderDiscovery):
        def __init__(self, namespace: str, watches: Any) -> None:
            super().__init__(f"{namespace}-{os.getpid()}", watches)


class TestIgnoresUpdates(Broken):
    caught_by = ("test_a_worker_joins_changes_and_leaves",)

    class Announcement(FolderAnnouncement):
        async def update(self, worker: abc.WorkerInfo) -> None: ...


class TestLimitsWorkers(Broken):
    caught_by = ("test_many_announcers",)

    class Watch(FolderWatch):
        def look(self) -> dict[str, abc.WorkerInfo]:
            return dict(list(super().look().items())[:32])


class TestSplitsTags(Broken):
    caught_by = ("test_all_is_told_of_a_worker[no letters]",)

    class Announcement(FolderAnnouncement):
        def write(self, worker: abc.WorkerInfo) -> None:
            super().write(replace(worker, tags=frozenset(",".join(worker.tags).split(","))))


class TestIsAscii(Broken):
    caught_by = ("test_all_is_told_of_a_worker[any script]",)

    class Announcement(FolderAnnouncement):
        def write(self, worker: abc.WorkerInfo) -> None:
            tags = {tag.encode("ascii", "replace").decode() for tag in worker.tags}
            super().write(replace(worker, tags=frozenset(tags)))


class TestLosesTheOrder(Broken):
    caught_by = ("test_all_is_told_of_a_worker[order]",)

    class Announcement(FolderAnnouncement):
        def write(self, worker: abc.WorkerInfo) -> None:
            super().write(replace(worker, serializers=tuple(sorted(worker.serializers))))


class TestDropsTheTail(Broken):
    caught_by = ("test_long_values[2000]", "test_long_values[100000]")

    class Announcement(FolderAnnouncement):
        def write(self, worker: abc.WorkerInfo) -> None:
            super().write(replace(worker, tags=frozenset(tag[:255] for tag in worker.tags)))


# Addresses that somebody else keeps -----------------------------------------------------------


class List(abc.Discovery):
    """A sound one."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.watches: list[tuple[Any, asyncio.AbstractEventLoop]] = []

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        class Announcement(abc.Announcement):
            async def update(self, worker: abc.WorkerInfo) -> None: ...

        yield Announcement()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
        events = self.events()
        entry = events, asyncio.get_running_loop()
        self.watches.append(entry)
        try:
            yield events
        finally:
            self.watches.remove(entry)
            self.end(events)

    def events(self) -> Any:
        events = Watch()
        events.put(self.snapshot())
        return events

    def end(self, events: Any) -> None:
        events.close()

    def snapshot(self) -> abc.Snapshot:
        return abc.Snapshot([abc.WorkerInfo(address=address) for address in self.addresses])

    def change(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        for events, loop in self.watches:
            loop.call_soon_threadsafe(events.put, self.snapshot())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class BrokenList(AddressDiscoverySuite):
    """The sound one, with some of its parts replaced."""

    patience = 1.0
    caught_by: tuple[str, ...] = ()
    List: type[List] = List

    def discovery(self) -> abc.Discovery:
        self.list = self.List(self.addresses)
        return self.list

    async def change(self, addresses: Sequence[str]) -> None:
        self.list.change(addresses)


class TestSaysJoined(BrokenList):
    caught_by = ("test_watches_are_apart",)

    class List(List):
        def snapshot(self) -> Any:
            return abc.Joined(abc.WorkerInfo(address=self.addresses[0]))


class TestNeverLooksAgain(BrokenList):
    caught_by = ("test_addresses_change",)

    class List(List):
        def change(self, addresses: Sequence[str]) -> None: ...


class TestListSharesIterators(BrokenList):
    caught_by = ("test_watches_are_apart",)

    class List(List):
        def __init__(self, addresses: Sequence[str]) -> None:
            super().__init__(addresses)
            self.common = super().events()

        def events(self) -> Any:
            return self.common


class TestIsAGenerator(BrokenList):
    caught_by = ("test_cancelling_anext_loses_nothing", "test_leaving_a_watch")

    class List(List):
        async def events(self) -> Any:
            await asyncio.sleep(0)
            yield self.snapshot()
            await asyncio.get_running_loop().create_future()

        def end(self, events: Any) -> None: ...


class TestListLetsReadersWaitForEver(BrokenList):
    caught_by = ("test_leaving_a_watch",)

    class List(List):
        def end(self, events: Any) -> None: ...


class TestRefusesAnnouncements(BrokenList):
    caught_by = ("test_announcing_does_no_harm",)

    class List(List):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            raise abc.ConfigurationError("nothing can be announced here")
            yield


class TestListBelongsToItsFirstLoop(BrokenList):
    caught_by = ("test_several_event_loops",)

    class List(List):
        def events(self) -> Any:
            self.loop = getattr(self, "loop", asyncio.get_running_loop())
            if asyncio.get_running_loop() is not self.loop:
                raise RuntimeError("is bound to a different event loop")
            return super().events()


class TestListLeaksThreads(BrokenList):
    caught_by = ("test_nothing_is_left",)

    class List(List):
        def events(self) -> Any:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            return super().events()
