"""What discoveries with one defect are made of."""

from __future__ import annotations

import pytest

from unit.discoveries.folder import FolderAnnouncement, FolderDiscovery, FolderWatch
from wool.abc import Discovery
from wool.testing import DiscoverySuite


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
