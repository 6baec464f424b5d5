"""Announcing: what is said of workers arrives, and is withdrawn."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from dataclasses import replace
from typing import Any

import pytest

from wool.abc import ConfigurationError, WorkerInfo
from wool.testing._discovery.base import Base, Site
from wool.testing._kit import remedy, soon

FIELDS: dict[str, dict[str, Any]] = {
    "all fields": {
        "tags": frozenset({"gpu", "big"}),
        "python": "3.13",
        "version": "1.2.3",
        "serializers": ("cloudpickle", "dill"),
        "pid": 4_194_304,
        "load": 7,
    },
    "no more than an id": {"pid": 0, "host": ""},
    "names": {"host": "wörker-1.example", "id": "Worker_1.a-b", "version": "1.0rc1+local"},
    "no letters": {
        "tags": frozenset({" ", "a,b", "a=b", "a;b|c", '"', "'", "\\", "%20", "{}", "*"})
    },
    "empty tag": {"tags": frozenset({""})},
    "any script": {"tags": frozenset({"tür", "機械", "🦄", "e\u0301", "é", "ß", "SS", "ss"})},
    "many": {"tags": frozenset(f"tag{number}" for number in range(60))},
    "order": {"serializers": ("c", "a", "b", "a2", "a10", "a1", "d", "x", "e", "y", "f", "g")},
}


class Boom(Exception):
    """Raised by a test."""


class Announcing(Base):
    """Part of `DiscoverySuite`."""

    @remedy(
        "Carry all fields of WorkerInfo but `load`, whatever characters they have, and keep the "
        "order of `serializers`. What cannot be carried: refuse with a ConfigurationError."
    )
    @pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
    async def test_all_is_told_of_a_worker(self, site: Site, fields: dict[str, Any]) -> None:
        """What is announced arrives as it is: every field, any text."""
        worker = site.worker(**fields)
        async with site.watch(site.another()) as watcher, site.announce(worker) as announcement:
            await watcher.sees(worker)
            await announcement.update(replace(worker, tags=frozenset({"other"})))
            await watcher.sees(replace(worker, tags=frozenset({"other"})))
            await announcement.update(worker)
            await watcher.sees(worker)

    @remedy("Refuse what is too long with a ConfigurationError that says what; never cut it off.")
    @pytest.mark.parametrize("size", [200, 2_000, 100_000])
    async def test_long_values(self, site: Site, size: int) -> None:
        """What is long arrives whole, or is refused by `announce`. 200 characters are not long."""
        worker = site.worker(tags=frozenset({"x" * size}), serializers=("cloudpickle",))
        async with site.watch(site.another()) as watcher:
            try:
                async with site.announce(worker):
                    await watcher.sees(worker)
            except ConfigurationError as error:
                assert size > 200, "200 characters are refused"
                assert str(error), "the refusal does not say why"  # noqa: PT017
            plain = site.worker()
            async with site.announce(plain):
                await watcher.sees(plain)

    @remedy("Announce workers independently: no lock, slot or name that two of them share.")
    async def test_many_announcers(self, site: Site) -> None:
        """Many who announce, together and from several instances, are all found and all leave."""
        instances = [site.ours, site.another(), site.another()]
        workers = site.workers(40)
        met = asyncio.Barrier(len(workers) + 1)

        async def announce(number: int, worker: WorkerInfo) -> None:
            async with site.announce(worker, instances[number % 3]):
                await met.wait()
                await met.wait()

        async with site.watch() as watcher, asyncio.TaskGroup() as group:
            tasks = [group.create_task(announce(*item)) for item in enumerate(workers)]
            await soon(met.wait(), "40 announcements at once", 3 * self.patience)
            await watcher.sees(*workers)
            async with site.watch(site.another()) as late:
                await late.sees(*workers)
                await soon(met.wait(), "40 announcements at once", self.patience)
                await watcher.sees()
                await late.sees()
            await asyncio.wait(tasks)

    @remedy("Let the last update win: number them, or keep them in order.")
    async def test_updates_in_a_row(self, site: Site) -> None:
        """`update` replaces what is announced; of several, the last one counts."""
        worker = site.worker()
        async with site.watch() as ours, site.watch(site.another()) as theirs:
            async with site.announce(worker) as announcement:
                for number in range(100):
                    worker = replace(worker, tags=frozenset({str(number)}))
                    await announcement.update(worker)
                await ours.sees(worker)
                await theirs.sees(worker)

    @remedy("Withdraw in a `finally`: the body may raise, or be cancelled.")
    @pytest.mark.parametrize("end", ["raises", "is cancelled"])
    async def test_leaving_withdraws(self, site: Site, end: str) -> None:
        """However an announcement is left, its worker is withdrawn; the error passes."""
        worker, seen = site.worker(), asyncio.Event()

        async def announce() -> None:
            async with site.announce(worker):
                await seen.wait()
                raise Boom

        async with site.watch() as watcher:
            task = asyncio.ensure_future(announce())
            await watcher.sees(worker)
            if end == "raises":
                seen.set()
            else:
                task.cancel()
            await asyncio.wait([task], timeout=self.patience)
            assert task.done(), "leaving the announcement does not end"
            ending = CancelledError() if task.cancelled() else task.exception()
            expected = Boom if end == "raises" else CancelledError
            assert isinstance(ending, expected), f"not {expected.__name__} got out, but {ending!r}"
            await watcher.sees()
            await site.settle(watchers=[watcher])
            async with site.watch(site.another()) as late:
                await late.sees()

    @remedy(
        "Say `Left` once for each worker. Stop what renews an announcement, and wait until it has "
        "stopped, before you withdraw: a renewal that comes later brings the worker back."
    )
    async def test_who_has_left_stays_away(self, site: Site) -> None:
        """A worker that was withdrawn leaves once, and does not come back."""
        workers = site.workers(6)
        async with site.watch() as ours, site.watch(site.another()) as theirs:
            for group in (workers[:3], workers[3:]):
                async with site.announce_all(group) as announcements:
                    await ours.sees(*group)
                    for announcement, worker in zip(announcements, group, strict=True):
                        await announcement.update(replace(worker, tags=frozenset({"last"})))
                await ours.sees()
                await theirs.sees()
            await asyncio.gather(*(one.quiet(self.gone_within / 2) for one in (ours, theirs)))
            async with site.watch(site.another()) as late:
                await late.sees()
                await site.settle(watchers=[ours, theirs, late])

    @remedy("Withdraw one worker, not all that the same process or instance has announced.")
    async def test_one_of_several_leaves(self, site: Site) -> None:
        """Withdrawing a worker leaves the others where they are."""
        stays, goes = site.workers(2)
        async with site.watch() as watcher, site.announce(stays) as announcement:
            async with site.announce(goes):
                await watcher.sees(stays, goes)
            await watcher.sees(stays)
            await site.settle(stays, watchers=[watcher])
            stays = replace(stays, tags=frozenset({"still there"}))
            await announcement.update(stays)
            await watcher.sees(stays)
