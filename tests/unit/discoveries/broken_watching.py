"""Discoveries whose watchers are told wrong things, nothing, or what others should be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from unit.discoveries.broken import Broken
from unit.discoveries.folder import FolderDiscovery, FolderWatch
from wool import abc


class TestForgetsWhoWasThereBefore(Broken):
    caught_by = ("test_late_watchers",)

    class Watch(FolderWatch):
        def put(self, event: Any) -> None:
            super().put(abc.Snapshot([]) if isinstance(event, abc.Snapshot) else event)


class TestSharesIterators(Broken):
    caught_by = ("test_watchers_do_not_share_events",)

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
    caught_by = ("test_leaving_while_somebody_waits",)

    class Watch(FolderWatch):
        async def aclose(self) -> None:
            self.task.cancel()
            await asyncio.wait([self.task])


class TestEndsAllWatchesWithOne(Broken):
    caught_by = ("test_leaving_a_watch_ends_no_other",)

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
