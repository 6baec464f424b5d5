"""Discoveries that announce wrongly, withdraw too little or too much, or too late."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from unit.discoveries.broken import Broken
from unit.discoveries.folder import FolderAnnouncement, FolderDiscovery, FolderWatch
from wool import abc


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
    caught_by = ("test_leaving_withdraws",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            announcement = self.Announcement(self.folder, worker)
            yield announcement
            announcement.withdraw()


class TestWithdrawsEverything(Broken):
    caught_by = ("test_one_of_several_leaves",)

    class Discovery(FolderDiscovery):
        @asynccontextmanager
        async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
            async with super().announce(worker) as announcement:
                yield announcement
                for path in self.folder.glob("*.json"):
                    path.unlink()


class TestStaysWithinItsProcess(Broken):
    caught_by = ("test_another_process",)

    class Discovery(FolderDiscovery):
        def __init__(self, namespace: str, watches: Any) -> None:
            super().__init__(f"{namespace}-{os.getpid()}", watches)


class TestIgnoresUpdates(Broken):
    caught_by = ("test_a_worker_joins_changes_and_leaves", "test_updates_in_a_row")

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
