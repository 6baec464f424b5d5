"""Random use of a discovery, against a model of who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from wool.abc import Announcement, WorkerInfo
from wool.testing._discovery.base import Base, Site
from wool.testing._discovery.events import Watcher
from wool.testing._kit import remedy, soon, turns
from wool.testing._random import use_randomly

T = TypeVar("T")
SOME = st.integers(0, 99)
SETTINGS = settings(
    stateful_step_count=20,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a failure may wait: do not shrink it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Held(Generic[T]):
    """A context that a task of its own holds."""

    value: T

    def __init__(self, context: AbstractAsyncContextManager[T], patience: float) -> None:
        self._entered, self._release = asyncio.Event(), asyncio.Event()
        self._patience = patience
        self._task = asyncio.ensure_future(self._hold(context))

    async def _hold(self, context: AbstractAsyncContextManager[T]) -> None:
        async with context as self.value:
            self._entered.set()
            await self._release.wait()

    async def enter(self) -> T:
        entering = asyncio.ensure_future(self._entered.wait())
        await asyncio.wait([entering, self._task], return_when=asyncio.FIRST_COMPLETED)
        entering.cancel()
        if self._task.done():
            self._task.result()
        return self.value

    async def leave(self) -> None:
        self._release.set()
        await soon(self._task, "leaving", self._patience)


class Random(RuleBasedStateMachine):
    """Two instances, where workers are announced and watched at random.

    It runs in a thread of its own, and what it does in the loop of the test.
    """

    def __init__(self, suite: Base, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.site = Site(suite)
        self.discoveries = (self.site.ours, self.site.another())
        self.there: list[tuple[WorkerInfo, Held[Announcement]]] = []
        self.watchers: list[Held[Watcher]] = []
        self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def teardown(self) -> None:
        self.run(self._finish())

    async def _finish(self) -> None:
        while self.there:
            await self.there.pop()[1].leave()
        for watching in self.watchers:
            await watching.value.sees()
            await watching.leave()

    @precondition(lambda self: len(self.there) < 6)
    @rule(which=st.integers(0, 1))
    def announce(self, which: int) -> None:
        """A new worker."""
        self.run(self._announce(self.discoveries[which]))

    async def _announce(self, discovery: Any) -> None:
        worker = self.site.worker()
        held = Held(self.site.announce(worker, discovery), self.site.patience)
        await held.enter()
        self.there.append((worker, held))

    @precondition(lambda self: self.there)
    @rule(some=SOME)
    def update(self, some: int) -> None:
        """One of the workers."""
        index = some % len(self.there)
        worker, held = self.there[index]
        self.number += 1
        worker = replace(worker, tags=frozenset({str(self.number)}))
        self.run(soon(held.value.update(worker), "update", self.site.patience))
        self.there[index] = worker, held

    @precondition(lambda self: self.there)
    @rule(some=SOME)
    def withdraw(self, some: int) -> None:
        """One of the workers."""
        _, held = self.there.pop(some % len(self.there))
        self.run(held.leave())

    @precondition(lambda self: len(self.watchers) < 4)
    @rule(which=st.integers(0, 1))
    def watch(self, which: int) -> None:
        """As somebody new."""
        self.run(self._watch(self.discoveries[which]))

    async def _watch(self, discovery: Any) -> None:
        held = Held(self.site.watch(discovery), self.site.patience)
        await held.enter()
        self.watchers.append(held)

    @precondition(lambda self: self.watchers)
    @rule(some=SOME)
    def leave(self, some: int) -> None:
        """As one of the watchers."""
        self.run(self.watchers.pop(some % len(self.watchers)).leave())

    @precondition(lambda self: self.watchers)
    @rule(some=SOME, before=st.integers(0, 5))
    def read_and_cancel(self, some: int, before: int) -> None:
        """After some turns of the loop; there may be something or not."""
        self.run(self._read_and_cancel(self.watchers[some % len(self.watchers)].value, before))

    async def _read_and_cancel(self, watcher: Watcher, before: int) -> None:
        reading = asyncio.ensure_future(anext(watcher.events))
        await turns(before)
        reading.cancel()
        await asyncio.wait([reading], timeout=watcher.patience)
        assert reading.done(), "a cancelled anext goes on"
        if not reading.cancelled():
            watcher.view.note(reading.result())

    @precondition(lambda self: self.watchers)
    @rule(some=SOME)
    def agree(self, some: int) -> None:
        """What a watcher knows is what there is, once it has read all."""
        watcher = self.watchers[some % len(self.watchers)].value
        self.run(watcher.sees(*(worker for worker, _ in self.there)))


class Use(Base):
    """Part of `DiscoverySuite`."""

    @remedy("Repeat by hand the steps that are printed above; what the last one shows is wrong.")
    async def test_random_use(self, site: Site) -> None:
        """Whatever is announced and watched, in whatever order, watchers come to know the truth."""
        loop = asyncio.get_running_loop()
        runs = settings(SETTINGS, max_examples=self.runs)
        await asyncio.to_thread(use_randomly, lambda: Random(self, loop), runs)
