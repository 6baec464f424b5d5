"""Discoveries with one defect each: the conformance kits find them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unit.scaffold import scaffold
from wool import abc
from wool._watching import Watch
from wool.abc import Discovery
from wool.testing import AddressDiscoverySuite, DiscoverySuite

files = scaffold("discovery", "files")
Entry: Any = files.Entry
FilesDiscovery: Any = files.FilesDiscovery


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class Broken(DiscoverySuite):
    """The sound discovery, with some of its parts replaced.

    Attributes:
        caught_by: tests that must fail, or whose end must: `"end of test_…"`.
        disturbed: whether something may have been missed.
        folders: those in use.
    """

    gone_within = 0.6
    patience = 1.0
    caught_by: tuple[str, ...] = ()
    disturbed = False
    folders: set[Path] = set()
    is_held = staticmethod(files.is_held)
    Entry: Any = Entry
    Discovery: Any = FilesDiscovery

    def discovery(self, namespace: str) -> Discovery:
        files.Entry, files.is_held = self.Entry, self.is_held
        folder = Path(tempfile.gettempdir())
        options = files.Options(namespace=namespace, directory=folder, interval=0.003)
        discovery = self.Discovery(options)
        self.folders.add(discovery._folder)
        return discovery

    async def disturb(self) -> None:
        Broken.disturbed = True

    @pytest.fixture(autouse=True)
    def cleared(self) -> Iterator[None]:
        Broken.disturbed = False
        yield
        while self.folders:
            shutil.rmtree(self.folders.pop(), ignore_errors=True)


class TestFiles(Broken):
    """The sound one, of which the broken ones are made."""

    gone_within = 4.0
    patience = 10.0


# Watchers are told wrong things, nothing, or what others should be told -----------------------


class TestForgetsWhoWasThereBefore(Broken):
    caught_by = ("test_a_worker_joins_changes_and_leaves",)

    class Discovery(FilesDiscovery):
        async def _events(self) -> AsyncGenerator[Any]:
            async for event in super()._events():
                yield abc.Snapshot([]) if isinstance(event, abc.Snapshot) else event


class TestSharesIterators(Broken):
    caught_by = ("test_watches_are_apart",)

    class Discovery(FilesDiscovery):
        common: Any = None

        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            if self.common is not None:
                yield self.common
                return
            async with super().watch() as self.common:
                yield self.common
            self.common = None


class Altered(AsyncIterator[Any]):
    """The events of a watch, and what is done to them."""

    def __init__(self, events: Any) -> None:
        self.events = events

    async def __anext__(self) -> Any:
        return await anext(self.events)


class Altering(FilesDiscovery):
    Events: Any = Altered

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
        async with super().watch() as events:
            yield self.Events(events)


class TestLetsReadersWaitForEver(Broken):
    caught_by = ("test_leaving_a_watch",)

    class Discovery(Altering):
        class Events(Altered):
            async def __anext__(self) -> Any:
                try:
                    return await super().__anext__()
                except StopAsyncIteration:
                    return await asyncio.get_running_loop().create_future()


class TestDropsWhatDoesNotFit(Broken):
    caught_by = ("test_a_watcher_that_does_not_keep_up",)

    class Discovery(Altering):
        class Events(Altered):
            def __init__(self, events: Any) -> None:
                super().__init__(events)
                self.queue: asyncio.Queue[Any] = asyncio.Queue()
                self.filling = asyncio.ensure_future(self.fill())

            async def fill(self) -> None:
                async for event in self.events:
                    if self.queue.empty() or not isinstance(event, abc.Changed):
                        self.queue.put_nowait(event)

            async def __anext__(self) -> Any:
                return await self.queue.get()


class TestKnowsOneNamespace(Broken):
    caught_by = ("test_namespaces_are_apart",)

    class Discovery(FilesDiscovery):
        def __init__(self, options: Any) -> None:
            super().__init__(replace(options, namespace="all"))


class TestBelongsToItsFirstLoop(Broken):
    """As whoever makes tasks and locks of asyncio once for all."""

    caught_by = ("test_several_event_loops",)

    class Discovery(FilesDiscovery):
        loop: asyncio.AbstractEventLoop | None = None

        def watch(self) -> Any:
            self.loop = self.loop or asyncio.get_running_loop()
            if asyncio.get_running_loop() is not self.loop:
                raise RuntimeError("is bound to a different event loop")
            return super().watch()


class TestLeaksWhenCancelled(Broken):
    caught_by = ("end of test_cancelling_at_any_time",)

    class Discovery(FilesDiscovery):
        @asynccontextmanager
        async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
            task = asyncio.ensure_future(asyncio.sleep(1000))
            await asyncio.sleep(0)
            try:
                async with super().watch() as events:
                    yield events
            finally:
                task.cancel()


class TestLeaksThreads(Broken):
    caught_by = ("test_nothing_is_left",)

    class Discovery(FilesDiscovery):
        def watch(self) -> Any:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            return super().watch()


class TestNeverRecovers(Broken):
    caught_by = ("test_a_disturbance",)

    class Discovery(FilesDiscovery):
        known: Any = None

        def _read(self) -> Any:
            if not Broken.disturbed or self.known is None:
                self.known = super()._read()
            return self.known


# Workers are announced wrongly, or withdrawn too little, too much, too late -------------------


class TestForgetsKilledAnnouncers(Broken):
    """The files of the dead stay."""

    caught_by = ("test_an_announcer_that_is_killed",)

    @staticmethod
    def is_held(lock: Path) -> bool:
        return True


class TestResurrectsWorkers(Broken):
    """An announcement is renewed once too often."""

    caught_by = ("test_who_has_left_stays_away",)

    class Discovery(FilesDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            async with super().announce(worker) as announcement:
                yield announcement

            async def renew() -> None:
                await asyncio.sleep(0.1)
                again = Entry(self._folder / f"w{worker.id}")
                await again.update(worker)
                asyncio.get_running_loop().call_later(0.3, again.remove)

            self.renewing = asyncio.ensure_future(renew())


class TestKeepsWhoseBodyFails(Broken):
    caught_by = ("test_leaving_withdraws[Boom]", "test_leaving_withdraws[CancelledError]")

    class Discovery(FilesDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            self.kept = kept = super().announce(worker)
            yield await kept.__aenter__()
            await kept.__aexit__(None, None, None)


class TestWithdrawsEverything(Broken):
    caught_by = ("test_leaving_withdraws[None]",)

    class Discovery(FilesDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            async with super().announce(worker) as announcement:
                yield announcement
                for path in self._folder.glob("*.json"):
                    path.unlink()


class TestLimitsWorkers(Broken):
    caught_by = ("test_many_announcers",)

    class Discovery(FilesDiscovery):
        def _read(self) -> dict[str, abc.WorkerInfo]:
            return dict(list(super()._read().items())[:32])


class TestDropsTheTail(Broken):
    caught_by = ("test_all_is_told_of_a_worker[2000 characters]",)

    class Entry(Entry):
        async def update(self, worker: abc.WorkerInfo) -> None:
            tags = frozenset(tag[:255] for tag in worker.tags)
            await super().update(replace(worker, tags=tags))


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


class TestNeverLooksAgain(BrokenList):
    caught_by = ("test_addresses_change",)

    class List(List):
        def change(self, addresses: Sequence[str]) -> None: ...


class TestIsAGenerator(BrokenList):
    caught_by = ("test_cancelling_anext_loses_nothing", "test_leaving_a_watch")

    class List(List):
        async def events(self) -> Any:
            await asyncio.sleep(0)
            yield self.snapshot()
            await asyncio.get_running_loop().create_future()

        def end(self, events: Any) -> None: ...


class TestRefusesAnnouncements(BrokenList):
    caught_by = ("test_announcing_does_no_harm",)

    class List(List):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            raise abc.ConfigurationError("nothing can be announced here")
            yield
