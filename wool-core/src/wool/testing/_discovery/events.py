"""What a watcher knows, put together from the events it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

import pytest

from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo
from wool.testing._kit import soon


def key_of(worker: WorkerInfo) -> str:
    """What tells workers apart: the id, or the address if no more is known."""
    return worker.id or worker.address


def bare(workers: Iterable[WorkerInfo]) -> dict[str, WorkerInfo]:
    """Workers by key, without their load: it changes all the time, and need not be announced."""
    return {key_of(worker): replace(worker, load=0) for worker in workers}


class View:
    """The workers that a watcher knows; complains of events that do not fit together.

    Args:
        withdrawn: keys of workers that never come back once they have left.
    """

    def __init__(self, withdrawn: set[str]) -> None:
        self.workers: dict[str, WorkerInfo] = {}
        self.events: list[Event] = []
        self._withdrawn = withdrawn
        self._left: set[str] = set()

    def note(self, event: object) -> None:
        """Takes in an event."""
        if not self.events:
            assert isinstance(event, Snapshot), f"the first event is no Snapshot, but {event!r}"
        if isinstance(event, Snapshot):
            self._replace(list(event.workers))
            self.events.append(event)
            return
        assert isinstance(event, (Joined, Changed, Left)), f"{event!r} is no event of a discovery"
        self.events.append(event)
        worker, key = event.worker, key_of(event.worker)
        assert isinstance(worker, WorkerInfo), f"{event!r} holds no WorkerInfo"
        known = self.workers.get(key)
        if isinstance(event, Joined):
            assert known is None, f"{key} joined a second time, without having left"
            self._appear(worker)
        elif isinstance(event, Changed):
            assert known is not None, f"{key} changed, but had not joined, or had left"
            assert known != worker, f"{key} changed to what it was before: {worker}"
            self.workers[key] = worker
        else:
            assert known is not None, f"{key} left, but had not joined, or had left before"
            self._left.add(key)
            del self.workers[key]

    def _replace(self, workers: list[WorkerInfo]) -> None:
        for worker in workers:
            assert isinstance(worker, WorkerInfo), f"a Snapshot of {worker!r}"
        assert len(bare(workers)) == len(workers), f"a Snapshot has a worker twice: {workers}"
        self.workers = {}
        for worker in workers:
            self._appear(worker)

    def _appear(self, worker: WorkerInfo) -> None:
        key = key_of(worker)
        back = key in self._left and key in self._withdrawn
        assert not back, f"{key} had withdrawn and left, and has come back"
        self.workers[key] = worker


class Watcher:
    """Somebody who watches; waits are bounded, and events are checked."""

    def __init__(self, events: AsyncIterator[Event], withdrawn: set[str], patience: float) -> None:
        self.events = events
        self.view = View(withdrawn)
        self.patience = patience

    async def next(self) -> Event:
        """The next event."""
        event = await soon(anext(self.events), "waiting for an event", self.patience)
        self.view.note(event)
        return event

    async def sees(self, *workers: WorkerInfo, within: float | None = None) -> None:
        """Reads events until these workers, and no others, are known."""
        wanted = bare(workers)
        await self.until(
            lambda: self.known() == wanted,
            lambda: f"know what there is: {difference(wanted, self.known())}",
            within,
        )

    async def until(
        self, condition: Callable[[], bool], what: Callable[[], str], within: float | None = None
    ) -> None:
        """Reads events until a condition holds; the snapshot at least."""
        seconds = self.patience if within is None else within
        reading = asyncio.ensure_future(self._read_until(condition))
        try:
            await asyncio.wait([reading], timeout=seconds)
        finally:
            reading.cancel()
        if reading.done() and not reading.cancelled():
            return reading.result()
        problem = what() if self.view.events else "get a Snapshot"
        pytest.fail(f"in {seconds:g} s a watcher did not come to {problem}")

    async def _read_until(self, condition: Callable[[], bool]) -> None:
        while not (self.view.events and condition()):
            try:
                self.view.note(await anext(self.events))
            except StopAsyncIteration:
                pytest.fail("the events ended, though the watch had not been left")

    async def quiet(self, seconds: float) -> None:
        """Reads whatever comes in this time."""
        reading = asyncio.ensure_future(self._read_until(lambda: False))
        await asyncio.wait([reading], timeout=seconds)
        reading.cancel()
        await asyncio.wait([reading], timeout=self.patience)
        if not reading.cancelled():
            reading.result()

    def known(self) -> dict[str, WorkerInfo]:
        """The workers that are known, without their load."""
        return bare(self.view.workers.values())


def difference(wanted: dict[str, WorkerInfo], known: dict[str, WorkerInfo]) -> str:
    """Says what is wrong with what is known."""
    problems = [f"{key} is missing" for key in wanted if key not in known]
    problems += [f"{key} is still known" for key in known if key not in wanted]
    for key, worker in wanted.items():
        for name in WorkerInfo.__slots__ if key in known else ():
            want, have = getattr(worker, name), getattr(known[key], name)
            if want != have:
                problems.append(f"{key} has {name} {have!r:.100}, not {want!r:.100}")
    more = f", and {len(problems) - 3} things more" if len(problems) > 3 else ""
    return ", ".join(problems[:3]) + more
