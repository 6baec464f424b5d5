"""What goes wrong: announcers that are killed, watchers that miss something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wool.testing._discovery.base import Base, Site
from wool.testing._kit import remedy


class Faults(Base):
    """Part of `DiscoverySuite`."""

    @pytest.mark.usefixtures("elsewhere")
    @remedy("Share what is announced with other processes, not only within this one.")
    async def test_another_process(self, site: Site) -> None:
        """Workers that another process announces are found, and leave when it withdraws them."""
        ours, theirs = site.worker(), site.worker()
        async with site.watch() as watcher, site.announce(ours):
            async with site.elsewhere(theirs) as process:
                await watcher.sees(ours, theirs)
                process.say("leave")
                assert await process.line() == "left"
                await watcher.sees(ours)

    @pytest.mark.usefixtures("elsewhere")
    @remedy(
        "Let what is announced expire unless it is renewed, or watch the announcer itself: its "
        "connection, its process, a lock that it holds. Say how long that takes in `gone_within`."
    )
    async def test_an_announcer_that_is_killed(self, site: Site) -> None:
        """Workers whose process was killed are gone `gone_within` seconds later, for everybody."""
        ours, *theirs = site.workers(3)
        async with site.watch() as watcher, site.announce(ours):
            async with site.elsewhere(*theirs) as process:
                await watcher.sees(ours, *theirs)
                process.kill()
                async with site.watch(site.another()) as late:
                    await watcher.sees(ours, within=self.gone_within)
                    await late.sees(ours, within=self.gone_within)

    @remedy(
        "Notice that events may have been missed, ask for all workers again, and tell watchers "
        "the difference or a new Snapshot. Announce again what the other side may have forgotten."
    )
    async def test_a_disturbance(self, site: Site) -> None:
        """Whatever is missed in a disturbance, watchers soon know the truth again."""
        stays, changes, comes = site.workers(3)
        async with site.watch() as watcher, site.watch(site.another()) as other:
            async with site.announce(stays), site.announce(changes) as announcement:
                await watcher.sees(stays, changes)
                for number in range(3):
                    await self.disturb()
                    changes = replace(changes, tags=frozenset({str(number)}))
                    await announcement.update(changes)
                    async with site.announce(comes):
                        await watcher.sees(stays, changes, comes, within=self._recovery)
                        await self.disturb()
                    await watcher.sees(stays, changes, within=self._recovery)
                    await other.sees(stays, changes, within=self._recovery)
                    site.withdrawn.discard(comes.id)
                    comes = site.worker()
            await watcher.sees(within=self._recovery)

    @property
    def _recovery(self) -> float:
        return self.patience + self.gone_within
