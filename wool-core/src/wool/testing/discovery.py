"""The conformance kits of discoveries."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from wool.abc import (
    Announcement,
    Changed,
    ConfigurationError,
    Discovery,
    Event,
    Joined,
    Left,
    Snapshot,
    WorkerInfo,
)
from wool.testing._kit import (
    Process,
    cancelled,
    here,
    leaves_nothing,
    remedy,
    say,
    soon,
    tidy,
    turns,
)

__all__ = ["AddressDiscoverySuite", "DiscoverySuite"]

T = TypeVar("T")

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
    "200 characters": {"tags": frozenset({"x" * 200})},
    "2000 characters": {"tags": frozenset({"x" * 2_000})},
    "100000 characters": {"tags": frozenset({"x" * 100_000})},
    "order": {"serializers": ("c", "a", "b", "a2", "a10", "a1", "d", "x", "e", "y", "f", "g")},
}


TOO_LONG = {"2000 characters", "100000 characters"}
"""Of these, what may be refused."""


class Boom(Exception):
    """Raised by a test."""


# The view of a watcher, put together from the events it was told ------------------------------


def key_of(worker: WorkerInfo) -> str:
    """The key of a worker: the id, or the address if no more is known."""
    return worker.id or worker.address


def bare(workers: Iterable[WorkerInfo]) -> dict[str, WorkerInfo]:
    """Workers by key, without their load: it changes all the time, and need not be announced."""
    return {key_of(worker): replace(worker, load=0) for worker in workers}


def tagged(worker: WorkerInfo, tag: object) -> WorkerInfo:
    """The worker as it has become."""
    return replace(worker, tags=frozenset({str(tag)}))


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
            self.events.append(event)
            self.workers = {}
            for worker in event.workers:
                assert isinstance(worker, WorkerInfo), f"a Snapshot of {worker!r}"
                assert key_of(worker) not in self.workers, f"a Snapshot has a worker twice: {event}"
                self._appear(worker)
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

    def _appear(self, worker: WorkerInfo) -> None:
        key = key_of(worker)
        back = key in self._left and key in self._withdrawn
        assert not back, f"{key} had withdrawn and left, and has come back"
        self.workers[key] = worker


class Watcher:
    """Somebody who watches; waits are bounded, and events are checked."""

    def __init__(self, events: AsyncIterator[Event], withdrawn: set[str], patience: float) -> None:
        self.events = events
        self.view: View = View(withdrawn)
        self.patience = patience

    async def sees(self, *workers: WorkerInfo, within: float | None = None) -> None:
        """Reads events, the snapshot at least, until these workers and no others are known."""
        wanted = bare(workers)
        seconds = self.patience if within is None else within
        reading = asyncio.ensure_future(self._read_until(lambda: self.known() == wanted))
        try:
            await asyncio.wait([reading], timeout=seconds)
        finally:
            reading.cancel()
        if reading.done() and not reading.cancelled():
            return reading.result()
        problem = "get a Snapshot"
        if self.view.events:
            problem = f"know what there is: {difference(wanted, self.known())}"
        pytest.fail(f"in {seconds:g} s a watcher did not come to {problem}")

    async def quiet(self, seconds: float) -> None:
        """Reads whatever comes in this time."""
        reading = asyncio.ensure_future(self._read_until(lambda: False))
        await asyncio.wait([reading], timeout=seconds)
        await cancelled(reading, "anext", self.patience)
        if not reading.cancelled():
            reading.result()

    async def _read_until(self, condition: Callable[[], bool]) -> None:
        while not (self.view.events and condition()):
            try:
                self.view.note(await anext(self.events))
            except StopAsyncIteration:
                pytest.fail("the events ended, though the watch had not been left")

    async def read_and_cancel(self, before: int) -> None:
        """Cancels a read after some turns of the loop; there may have been something or not."""
        reading = asyncio.ensure_future(anext(self.events))
        await turns(before)
        await cancelled(reading, "anext", self.patience)
        if not reading.cancelled():
            self.view.note(reading.result())

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


# Those who announce and watch -----------------------------------------------------------------


@asynccontextmanager
async def held(
    context: AbstractAsyncContextManager[T], what: str, seconds: float
) -> AsyncGenerator[T]:
    """Holds a context, as Wool does: entered and left by the same task. Both in bounded time."""
    value = await here(context.__aenter__(), f"entering {what}", seconds)
    try:
        yield value
    except BaseException as error:
        leaving = context.__aexit__(type(error), error, error.__traceback__)
        if await here(leaving, f"leaving {what}", seconds):
            pytest.fail(f"{what} swallows {error!r}")
        raise
    await here(context.__aexit__(None, None, None), f"leaving {what}", seconds)


class Site:
    """Announces and watches for one test, with discoveries that belong together."""

    def __init__(self, make: Callable[[], Discovery], patience: float) -> None:
        self.another = make
        """Makes another discovery of the same namespace, as other processes have."""
        self.ours: Discovery = make()
        self.patience = patience
        self.withdrawn: set[str] = set()

    @asynccontextmanager
    async def announce(
        self, worker: WorkerInfo, discovery: Discovery | None = None
    ) -> AsyncGenerator[Announcement]:
        """Announces a worker while the context is open."""
        context = (discovery or self.ours).announce(worker)
        try:
            async with held(context, "an announcement", self.patience) as announcement:
                yield announcement
        finally:
            self.withdrawn.add(worker.id)

    @asynccontextmanager
    async def announce_all(self, workers: Sequence[WorkerInfo]) -> AsyncGenerator[list[Any]]:
        """Announces workers while the context is open."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.announce(worker)) for worker in workers]

    @asynccontextmanager
    async def watch(self, discovery: Discovery | None = None) -> AsyncGenerator[Watcher]:
        """Watches while the context is open."""
        context = (discovery or self.ours).watch()
        async with held(context, "a watch", self.patience) as events:
            yield Watcher(events, self.withdrawn, self.patience)


class Watching:
    """Tests of what all watchers are promised."""

    patience: float = 10.0

    def _begin(self) -> Site:
        """Makes a site for a test."""
        raise NotImplementedError

    def _some(self) -> Sequence[WorkerInfo]:
        """Workers that can be there."""
        raise NotImplementedError

    def _there(self, site: Site, workers: Sequence[WorkerInfo]) -> AbstractAsyncContextManager[Any]:
        """Sees to it that workers are there while the context is open."""
        raise NotImplementedError

    @pytest_asyncio.fixture(loop_scope="function")
    async def site(self, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
        """Checks, besides, that tests leave no tasks behind and log nothing that alarms."""
        async with tidy(caplog, self.patience):
            yield self._begin()

    @remedy(
        "Give each call of watch() its own iterator with its own queue, and have it begin with a "
        "Snapshot. Let leaving it end its own events only; count users of what watches share."
    )
    async def test_watches_are_apart(self, site: Site) -> None:
        """Each watcher begins with a Snapshot, and gets its events whoever else comes or goes."""
        workers = self._some()
        async with self._there(site, workers), site.watch() as stays:
            async with site.watch() as leaves, site.watch():
                assert stays.events is not leaves.events, "two watches have the same iterator"
                await leaves.sees(*workers)
            await stays.sees(*workers)
            more = self._some()
            async with self._there(site, more), site.watch() as comes:
                await stays.sees(*workers, *more)
                await comes.sees(*workers, *more)

    @remedy(
        "Take an event off the queue only where nothing can be cancelled any more: wait first, "
        "then take without awaiting. An async generator ends when it is cancelled; write a class "
        "with __anext__."
    )
    async def test_cancelling_anext_loses_nothing(self, site: Site) -> None:
        """A cancelled `anext` loses no event, and the next one goes on."""
        workers = self._some()
        async with self._there(site, workers), site.watch() as watcher:
            for number in range(10):
                reading = asyncio.ensure_future(watcher.read_and_cancel(number % 5))
                await turns(number % 2)
                async with self._there(site, self._some()):
                    await reading
            await watcher.sees(*workers)

    @remedy("On leaving, end the iteration with StopAsyncIteration, also for who is waiting.")
    async def test_leaving_a_watch(self, site: Site) -> None:
        """Leaving a watch ends its events: for a task that waits for one, and ever after."""
        workers = self._some()
        async with self._there(site, workers), site.watch() as watcher:
            await watcher.sees(*workers)
            waiting = asyncio.ensure_future(anext(watcher.events))
            await turns(10)
            assert not waiting.done(), f"there was nothing to tell, but {waiting}"
        for ending in (waiting, anext(watcher.events), anext(watcher.events)):
            with pytest.raises(StopAsyncIteration):
                await soon(ending, "anext of a watch that was left", self.patience)

    @remedy(
        "Keep nothing that belongs to an event loop in the discovery itself: make what a loop "
        "needs when it announces or watches for the first time."
    )
    async def test_several_event_loops(self, site: Site) -> None:
        """A discovery serves event loops in several threads at once: a pool and its workers."""
        ours, theirs = self._some(), self._some()
        seen = threading.Event()

        async def elsewhere() -> None:
            async with site.watch() as watcher, self._there(site, theirs):
                await watcher.sees(*ours, *theirs)
                await asyncio.to_thread(seen.wait, self.patience)

        async with self._there(site, ours), site.watch() as watcher:
            thread = asyncio.ensure_future(asyncio.to_thread(asyncio.run, elsewhere()))
            try:
                await watcher.sees(*ours, *theirs)
            finally:
                seen.set()
                await soon(thread, "an event loop in another thread", 3 * self.patience)
            await watcher.sees(*ours)

    @remedy("Close files and sockets, and end threads, with the last watch and announcement.")
    async def test_nothing_is_left(self, site: Site) -> None:
        """Watches and announcements that have been left leave no descriptors and no threads."""

        async def use() -> None:
            workers = self._some()
            async with site.watch() as watcher, site.watch(), self._there(site, workers):
                await watcher.sees(*workers)

        await leaves_nothing(use, self.patience)


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class AddressDiscoverySuite(Watching):
    """Tests discoveries that find addresses which somebody else keeps, such as `static` and `dns`.

    Override `discovery`; and `change`, if what it finds can change.

    Attributes:
        addresses: what it finds at first: at least two.
        patience: seconds that anything may take before it counts as hanging.
    """

    addresses: Sequence[str] = ("grpc://192.0.2.1:7000", "grpc://192.0.2.2:7000")

    def discovery(self) -> Discovery:
        """Makes the discovery; called once for each test."""
        raise NotImplementedError("override discovery() to make the discovery that is tested")

    async def change(self, addresses: Sequence[str]) -> None:
        """Has it find other addresses; without it that is not tested."""
        pytest.skip("change() is not overridden")

    def _begin(self) -> Site:
        return Site(self.discovery, self.patience)

    def _some(self) -> Sequence[WorkerInfo]:
        return [WorkerInfo(address=address) for address in self.addresses]

    def _there(self, site: Site, workers: Sequence[WorkerInfo]) -> AbstractAsyncContextManager[Any]:
        return contextlib.nullcontext()

    @remedy("Tell watchers when there are others, for instance with another Snapshot.")
    async def test_addresses_change(self, site: Site) -> None:
        """Addresses that come and go are told, also to who comes late, and if all are gone."""
        every = self._some()
        async with site.watch() as watcher, site.watch() as other:
            await watcher.sees(*every)
            for count in (1, 0, len(every)):
                await self.change(self.addresses[:count])
                await watcher.sees(*every[:count])
                async with site.watch() as late:
                    await late.sees(*every[:count])
            await other.sees(*every)

    @remedy("Accept announcements, and do nothing with them: the list is kept by somebody else.")
    async def test_announcing_does_no_harm(self, site: Site) -> None:
        """A worker may be announced, though nobody is told."""
        worker = WorkerInfo(id="w", address="grpc://192.0.2.9:7000")
        async with site.watch() as watcher, site.announce(worker) as announcement:
            await announcement.update(worker)
            await watcher.sees(*self._some())


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class DiscoverySuite(Watching):
    """Tests what `wool.abc` promises of discoveries; subclass it in a test module.

    Override `discovery`, and the others where they do not fit. The values of one instance must
    fit those of another instance in another process: tests start some.

    Attributes:
        in_process: whether workers are found in this process alone; then no other one is started.
        gone_within: seconds in which workers disappear whose process was killed.
        patience: seconds that anything else may take before it counts as hanging.
    """

    in_process: bool = False
    gone_within: float = 10.0

    def discovery(self, namespace: str) -> Discovery:
        """Makes a discovery whose workers are found by those of the same namespace.

        Called several times in a test, and in other processes; each namespace is new.
        """
        raise NotImplementedError("override discovery() to make the discovery that is tested")

    def address(self, number: int) -> str:
        """An address that can be announced; nobody dials it. Each number gives another one."""
        return f"grpc://127.0.0.1:{7000 + number}"

    async def disturb(self) -> None:
        """Has watchers miss something, for instance by cutting their connections.

        An announcement must be found again after a while. Without it that is not tested.
        """
        pytest.skip("disturb() is not overridden")

    def _begin(self) -> Site:
        return self._site_of(f"wool-{secrets.token_hex(8)}")

    def _site_of(self, namespace: str) -> Site:
        """Makes a site with a namespace of its own."""
        self._namespace = namespace
        return Site(lambda: self.discovery(namespace), self.patience)

    def _worker(self, **fields: Any) -> WorkerInfo:
        """A worker that nobody has announced yet."""
        self._number = number = getattr(self, "_number", 0) + 1
        values: dict[str, Any] = {"id": secrets.token_hex(8), "host": "here", "pid": number}
        values["address"] = self.address(number)
        return WorkerInfo(**(values | fields))

    def _workers(self, count: int) -> list[WorkerInfo]:
        return [self._worker() for _ in range(count)]

    def _some(self) -> Sequence[WorkerInfo]:
        return self._workers(2)

    def _there(self, site: Site, workers: Sequence[WorkerInfo]) -> AbstractAsyncContextManager[Any]:
        return site.announce_all(workers)

    # Watching ---------------------------------------------------------------------------------

    @remedy(
        "Begin with a Snapshot, an empty one if there are no workers. Then tell every watcher of "
        "every worker that appears (Joined), changes (Changed) or goes (Left). Let the last update "
        "win: number them, or keep them in order."
    )
    async def test_a_worker_joins_changes_and_leaves(self, site: Site) -> None:
        """Watchers see workers come, change and go; of several updates the last one counts.

        Those that begin later find all who are there, as they have become.
        """
        worker, other = self._workers(2)
        async with site.watch() as one, site.watch(site.another()) as two:
            watchers = [one, two]
            for watcher in watchers:
                await watcher.sees()
            async with site.announce(worker) as announcement:
                for count in (1, 2, 100):
                    for number in range(count):
                        worker = tagged(worker, f"{count}.{number}")
                        await announcement.update(worker)
                    for watcher in watchers:
                        await watcher.sees(worker)
                async with site.watch() as three, site.watch(site.another()) as four:
                    watchers += [three, four]
                    async with site.announce(other):
                        for watcher in watchers:
                            await watcher.sees(worker, other)
                    for watcher in watchers:
                        await watcher.sees(worker)
            gone = [event for event in one.view.events if isinstance(event, Left)]
            assert len(gone) <= 1, f"update() is told as {gone[0]!r} and so on, not as Changed"
            for watcher in (one, two):
                await watcher.sees()

    @remedy(
        "Keep a bounded queue for each watcher, or only which workers have changed; one that "
        "cannot take more gets a Snapshot in place of what it has missed."
    )
    async def test_a_watcher_that_does_not_keep_up(self, site: Site) -> None:
        """A watcher that takes no events holds up nobody, and sees the truth when it reads on."""
        stays, goes, changes = self._workers(3)
        async with site.watch() as slow, site.watch() as quick:
            async with site.announce(stays), site.announce(changes) as announcement:
                async with site.announce(goes):
                    await quick.sees(stays, goes, changes)
                    for number in range(300):
                        changes = tagged(changes, number)
                        await announcement.update(changes)
                await quick.sees(stays, changes)
                await slow.sees(stays, changes)

    @remedy(
        "Make the namespace part of where, or under what name, workers are announced, and compare "
        "it as a whole: another one may begin with it."
    )
    async def test_namespaces_are_apart(self, site: Site) -> None:
        """Workers are found by watchers of their own namespace, and by no others."""
        other = self._site_of(f"{self._namespace}-2")
        worker, stranger = self._workers(2)
        async with site.watch() as watcher, other.watch() as elsewhere:
            async with other.announce(stranger):
                await elsewhere.sees(stranger)
                async with site.announce(worker):
                    await watcher.sees(worker)
                    async with site.watch(site.another()) as late:
                        await late.sees(worker)
            await elsewhere.sees()
            ids = {event.worker.id for event in watcher.view.events[1:]}  # type: ignore[union-attr]
            assert ids == {worker.id}, "a watcher was told of workers of another namespace"

    @remedy("Undo in a `finally` what has been done so far, and await the tasks you cancel there.")
    @pytest.mark.parametrize("after", range(8))
    async def test_cancelling_at_any_time(self, site: Site, after: int) -> None:
        """Announcing and watching, cancelled while it is entered, leaves nothing behind."""
        worker = self._worker()

        async def use() -> None:
            async with site.announce(worker), site.watch() as watcher:
                await watcher.sees(worker)
                await asyncio.get_running_loop().create_future()

        using = asyncio.ensure_future(use())
        await turns(after)
        await cancelled(using, "announcement or watch", self.patience)
        assert using.cancelled(), f"cancelled after {after} turns of the loop: {using}"
        async with site.watch() as watcher:
            await watcher.sees()

    # Announcing -------------------------------------------------------------------------------

    @remedy(
        "Carry all fields of WorkerInfo but `load`, whatever characters they have, and keep the "
        "order of `serializers`. Refuse a value that cannot be carried, or is too long, with a "
        "ConfigurationError that says what; never cut it off."
    )
    @pytest.mark.parametrize("name", FIELDS)
    async def test_all_is_told_of_a_worker(self, site: Site, name: str) -> None:
        """An announcement arrives as it is: every field, any text.

        Long values may be refused by `announce`. 200 characters are not long.
        """
        worker = self._worker(**FIELDS[name])
        async with site.watch(site.another()) as watcher:
            try:
                async with site.announce(worker) as announcement:
                    await watcher.sees(worker)
                    for news in (tagged(worker, "other"), worker):
                        await announcement.update(news)
                        await watcher.sees(news)
            except ConfigurationError as error:
                assert name in TOO_LONG, f"{name}: {error}"  # noqa: PT017
                assert str(error), "the refusal does not say why"  # noqa: PT017
            plain = self._worker()
            async with site.announce(plain):
                await watcher.sees(plain)

    @remedy("Announce workers independently: no lock, slot or name that two of them share.")
    async def test_many_announcers(self, site: Site) -> None:
        """Many who announce, together and from several instances, are all found and all leave."""
        instances = [site.ours, site.another(), site.another()]
        workers = self._workers(40)
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

    @remedy(
        "Withdraw in a `finally`: the body may raise, or be cancelled. Withdraw this worker, not "
        "all that the same process or instance has announced."
    )
    @pytest.mark.parametrize("end", [None, Boom, CancelledError])
    async def test_leaving_withdraws(self, site: Site, end: type[BaseException] | None) -> None:
        """However an announcement is left, its worker is withdrawn, and no other; errors pass."""
        stays, goes = self._workers(2)
        seen = asyncio.Event()

        async def announce() -> None:
            async with site.announce(goes):
                await seen.wait()
                if end is not None:
                    raise end

        async with site.watch() as watcher, site.announce(stays):
            task = asyncio.ensure_future(announce())
            await watcher.sees(stays, goes)
            seen.set()
            await asyncio.wait([task], timeout=self.patience)
            assert task.done(), "leaving the announcement does not end"
            ending = CancelledError() if task.cancelled() else task.exception()
            assert type(ending) is (end or type(None)), f"{ending!r} got out"
            await watcher.sees(stays)
            another = self._worker()  # is not known before whatever had happened earlier
            async with site.announce(another), site.watch(site.another()) as late:
                for each in (watcher, late):
                    await each.sees(stays, another)

    @remedy(
        "Say `Left` once for each worker. Stop what renews an announcement, and wait until it has "
        "stopped, before you withdraw: a renewal that comes later brings the worker back."
    )
    async def test_who_has_left_stays_away(self, site: Site) -> None:
        """A worker that was withdrawn leaves once, and does not come back."""
        async with site.watch() as ours, site.watch(site.another()) as theirs:
            for group in (self._workers(3), self._workers(3)):
                async with site.announce_all(group) as announcements:
                    await ours.sees(*group)
                    for announcement, worker in zip(announcements, group, strict=True):
                        await announcement.update(tagged(worker, "last"))
                await ours.sees()
                await theirs.sees()
            await asyncio.gather(*(one.quiet(self.gone_within / 2) for one in (ours, theirs)))
            another = self._worker()  # as above
            async with site.watch(site.another()) as late, site.announce(another):
                for watcher in (ours, theirs, late):
                    await watcher.sees(another)

    # Failures ---------------------------------------------------------------------------------

    @remedy(
        "Let what is announced expire unless it is renewed, or watch the announcer itself: its "
        "connection, its process, a lock that it holds. Say how long that takes in `gone_within`. "
        "Share what is announced with other processes."
    )
    async def test_an_announcer_that_is_killed(self, site: Site) -> None:
        """Workers whose process was killed are gone `gone_within` seconds later, for everybody."""
        if self.in_process:
            pytest.skip("workers are found in this process alone")
        ours, leaves, *killed = self._workers(4)
        order = [[worker.id, worker.address, worker.pid] for worker in (leaves, *killed)]
        async with site.watch() as watcher, site.announce(ours):
            async with Process(self, namespace=self._namespace, workers=order) as process:
                assert await process.line() == "announced"
                await watcher.sees(ours, leaves, *killed)
                process.say("leave")
                await watcher.sees(ours, *killed)
                process.kill()
                async with site.watch(site.another()) as late:
                    await watcher.sees(ours, within=self.gone_within)
                    await late.sees(ours, within=self.gone_within)

    async def play(self, order: dict[str, Any], told: asyncio.Queue[str]) -> None:
        """In the other process: announces workers; the first of them leaves when told so."""
        discovery = self.discovery(order["namespace"])
        first, *others = (
            WorkerInfo(id=ident, address=address, pid=pid, host="here")
            for ident, address, pid in order["workers"]
        )
        async with AsyncExitStack() as stack:
            for worker in others:
                await stack.enter_async_context(discovery.announce(worker))
            async with discovery.announce(first):
                say("announced")
                await told.get()
            await told.get()

    @remedy(
        "Notice that events may have been missed, ask for all workers again, and tell watchers "
        "the difference or a new Snapshot. Announce again what the other side may have forgotten."
    )
    async def test_a_disturbance(self, site: Site) -> None:
        """Watchers soon know the truth again, whatever they missed in a disturbance."""
        stays, changes = self._workers(2)
        recovery = self.patience + self.gone_within
        async with site.watch() as watcher, site.watch(site.another()) as other:
            async with site.announce(stays), site.announce(changes) as announcement:
                await watcher.sees(stays, changes)
                for number in range(3):
                    await self.disturb()
                    changes = tagged(changes, number)
                    await announcement.update(changes)
                    comes = self._worker()
                    async with site.announce(comes):
                        await watcher.sees(stays, changes, comes, within=recovery)
                        await self.disturb()
                    await watcher.sees(stays, changes, within=recovery)
                    await other.sees(stays, changes, within=recovery)
                    site.withdrawn.discard(comes.id)
            await watcher.sees(within=recovery)
