"""Discoveries of addresses with one defect each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wool import abc
from wool._watching import Watch
from wool.testing import AddressDiscoverySuite


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
class Broken(AddressDiscoverySuite):
    """The sound one, with some of its parts replaced."""

    patience = 1.0
    caught_by: tuple[str, ...] = ()
    List: type[List] = List

    def discovery(self) -> abc.Discovery:
        self.list = self.List(self.addresses)
        return self.list

    async def change(self, addresses: Sequence[str]) -> None:
        self.list.change(addresses)


class TestSaysJoined(Broken):
    caught_by = ("test_the_first_event_is_a_snapshot",)

    class List(List):
        def snapshot(self) -> Any:
            return abc.Joined(abc.WorkerInfo(address=self.addresses[0]))


class TestNeverLooksAgain(Broken):
    caught_by = ("test_addresses_change",)

    class List(List):
        def change(self, addresses: Sequence[str]) -> None: ...


class TestSharesIterators(Broken):
    caught_by = ("test_watchers_do_not_share_events",)

    class List(List):
        def __init__(self, addresses: Sequence[str]) -> None:
            super().__init__(addresses)
            self.common = super().events()

        def events(self) -> Any:
            return self.common


class TestIsAGenerator(Broken):
    caught_by = ("test_cancelling_anext_loses_nothing", "test_leaving_while_somebody_waits")

    class List(List):
        async def events(self) -> Any:
            await asyncio.sleep(0)
            yield self.snapshot()
            await asyncio.get_running_loop().create_future()

        def end(self, events: Any) -> None: ...


class TestLetsReadersWaitForEver(Broken):
    caught_by = ("test_leaving_while_somebody_waits",)

    class List(List):
        def end(self, events: Any) -> None: ...


class TestRefusesAnnouncements(Broken):
    caught_by = ("test_announcing_does_no_harm",)

    class List(List):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            raise abc.ConfigurationError("nothing can be announced here")
            yield


class TestBelongsToItsFirstLoop(Broken):
    caught_by = ("test_several_event_loops",)

    class List(List):
        def events(self) -> Any:
            self.loop = getattr(self, "loop", asyncio.get_running_loop())
            if asyncio.get_running_loop() is not self.loop:
                raise RuntimeError("is bound to a different event loop")
            return super().events()


class TestLeaksThreads(Broken):
    caught_by = ("test_nothing_is_left",)

    class List(List):
        def events(self) -> Any:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            return super().events()
