"""The own workers of a pool: as many as it is to have, kept running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from wool._client.identity import PYTHON, VERSION
from wool._peer.background import settle
from wool._pool.membership import RETRY_FIRST, RETRY_MOST
from wool._worker.backends import Announcing, ChosenDiscovery
from wool._worker.process import OwnWorker, WorkerProcess
from wool._workerinfo import WorkerInfo
from wool.exceptions import NoWorkersAvailable, WoolError

_log = logging.getLogger("wool.discovery")
_log_worker = logging.getLogger("wool.worker")

EXIT_KNOWN_WITHIN = 0.5
"""Seconds in which it is known how a worker ended that has just been lost."""

MOST_FAILURES = 3
"""After so many workers in a row that ended before they were ready, calls fail at once."""

MOST_EXITS = 64
"""So many workers of the past are remembered, to say how they ended."""

FIRST_DELAY, MOST_DELAY, STABLE_AFTER = 0.05, 2.0, 5.0
"""Seconds before a worker is replaced: first, at most, and how long one has to live for the delay
to begin anew."""


class Supervisor:
    """Keeps workers running: one that ends is replaced, one that drains at once.

    How many is said by `resize`. Those that are too many are not replaced once they have ended.

    Args:
        quorum: with fewer, the pool is of no use.
        start: starts a worker by this id in this slot, in a process that is there already if one
            is given.
        tags, serializer_name: what is said of the workers.
        discovery: where they are announced.
        prepare: has a worker do what it has to before it is called; returns why it could not.
        cancel_grace: seconds that their calls get to clean up when they are told to end.
        on_change: called when there is one more, or one less.
        on_end: called with the id of a worker that has ended.
        on_failure: called with an error when several in a row could not be started, and those that
            may be well are fewer than the quorum.
        on_abandoned: called when somebody else has cancelled all that keeps workers, and they have
            ended.

    Attributes:
        workers: those that can be called, by id.
        failure: why one could not be started, if there is one that has not been.
    """

    def __init__(
        self,
        quorum: int,
        start: Callable[[str, int, WorkerProcess | None], OwnWorker],
        *,
        tags: frozenset[str],
        serializer_name: str,
        discovery: ChosenDiscovery | None,
        prepare: Callable[[WorkerInfo], Awaitable[WoolError | None]],
        cancel_grace: float,
        on_change: Callable[[], None],
        on_end: Callable[[str], None],
        on_failure: Callable[[NoWorkersAvailable], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        self.workers: dict[str, WorkerInfo] = {}
        self._size, self._quorum = 0, quorum
        self._start = start
        self._tags = tags
        self._serializer_name = serializer_name
        self._discovery = discovery
        self._prepare = prepare
        self._cancel_grace = cancel_grace
        self._on_change = on_change
        self._on_end = on_end
        self._on_failure = on_failure
        self._on_abandoned = on_abandoned
        self._slots: set[int] = set()  # in which a worker is kept
        self._keepers: set[asyncio.Task[None]] = set()
        self._running: dict[str, OwnWorker] = {}
        self._exits: dict[str, OwnWorker] = {}
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._failures: Counter[int] = Counter()  # by slot, since it has had a worker
        self.failure = ""
        self._stopping = False

    def resize(self, size: int, early: Sequence[WorkerProcess] = ()) -> None:
        """Keeps so many workers from now on.

        Args:
            early: processes that have been started for the first slots.
        """
        self._size = size
        for slot in count():
            if len(self._slots) >= size:
                return
            if slot not in self._slots:
                self._slots.add(slot)
                self.run(self._keep(slot, early[slot] if slot < len(early) else None))

    def run(self, keeping: Coroutine[Any, Any, None]) -> None:
        """Runs what workers are kept by, until `stop`."""
        keeper = asyncio.create_task(keeping)
        self._keepers.add(keeper)
        keeper.add_done_callback(self._on_kept)

    def _on_kept(self, keeper: asyncio.Task[None]) -> None:
        """Nobody keeps a worker any more: calls need not wait for one, unless it was too many."""
        if not keeper.cancelled() and keeper.exception() is None:
            self._keepers.discard(keeper)
            return
        if self._stopping:
            return
        if keeper.cancelled():
            failure = NoWorkersAvailable(
                "the pool's workers have ended, because all tasks of the event loop it was opened "
                "on have been cancelled: spare those you have not made, or open a pool anew"
            )
        else:
            error = keeper.exception()
            failure = NoWorkersAvailable(f"the pool cannot start workers any more: {error!r}")
            failure.__cause__ = error
        self.failure = str(failure)
        self._on_failure(failure)
        if all(keeper.cancelled() for keeper in self._keepers):
            self._on_abandoned()

    def stop(self) -> None:
        """Replaces nobody any more, and tells those that are running to end."""
        self._stopping = True
        for keeper in self._keepers:
            # With all tasks of the loop, it may have been already: it gives its worker time to end.
            if not keeper.cancelling():
                keeper.cancel()

    async def aclose(self) -> None:
        """Ends all workers; kills those that do not end soon enough."""
        try:
            await asyncio.gather(*self._keepers, return_exceptions=True)
            stops = [worker.stop(self._cancel_grace) for worker in self._running.values()]
            await asyncio.gather(*stops, return_exceptions=True)
        finally:
            for worker in self._running.values():
                worker.kill()
            self._keepers.clear()
            self._running.clear()
            self.workers.clear()

    def replace(self, ident: str) -> None:
        """A worker has said that it drains: it is replaced, while its last calls run."""
        leaving = self._leaving.get(ident)
        if leaving is not None:
            leaving.get_loop().call_soon_threadsafe(settle, leaving)

    def waiting(self) -> list[str]:
        """Says what workers wait for that are not ready."""
        return list(dict.fromkeys(w.waiting for w in self._running.values() if w.waiting))

    async def ended(self, ident: str) -> tuple[int, str] | None:
        """Returns how a worker ended, as `subprocess` has it and in words; None if it has not."""
        worker = self._exits.get(ident)
        if worker is None:
            return None
        exited = worker.exited
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_KNOWN_WITHIN):
                await asyncio.shield(asyncio.wrap_future(exited))
        # A loop that was blocked learns of the end, and that the time is up, in one turn.
        return (exited.result(), worker.describe(exited.result())) if exited.done() else None

    # One worker after another -------------------------------------------------------------------

    async def _keep(self, slot: int, early: WorkerProcess | None) -> None:
        """Keeps a worker running in a slot; starts another one, a little later each time.

        One that drains has done nothing wrong: another one is started at once.
        """
        delay = FIRST_DELAY
        # If it is stopping, Ctrl-C may have struck before this task was known.
        while not self._stopping and len(self._slots) <= self._size:
            ident = secrets.token_hex(8)
            began = time.monotonic()
            try:
                worker = self._start(ident, slot, early)
            except (OSError, RuntimeError) as error:
                # No more processes, threads or descriptors, perhaps only for now.
                self._note_failure(slot, str(error))
                delay *= 2
                await asyncio.sleep(min(delay, MOST_DELAY))
                continue
            early = None
            try:
                drains = await self._run(ident, slot, worker)
            except asyncio.CancelledError:
                await worker.stop(self._cancel_grace)
                raise
            finally:
                self._leave(ident)
            stable = drains or time.monotonic() - began > STABLE_AFTER
            delay = FIRST_DELAY if stable else delay * 2
            if not drains:
                await asyncio.sleep(min(delay, MOST_DELAY))
        self._slots.remove(slot)
        self._forget_failures(slot)

    async def _run(self, ident: str, slot: int, worker: OwnWorker) -> bool:
        """Lets a worker be called once it is ready; returns when it has ended, or drains."""
        self._running[ident] = worker
        self._exits[ident] = worker
        while len(self._exits) > MOST_EXITS + self._size:
            del self._exits[next(iter(self._exits))]
        problem = None
        try:
            report = await worker.ready()
        except asyncio.CancelledError:
            worker.kill()  # it has nothing to clean up
            raise
        if "address" in report:
            info = WorkerInfo(
                **report,
                id=ident,
                tags=self._tags,
                python=PYTHON,
                version=VERSION,
                serializers=(self._serializer_name,),
            )
            problem = await self._prepare(info)
            if problem is None:
                self._forget_failures(slot)
                return await self._serve(ident, worker, info)
            _log_worker.warning("%s", problem, exc_info=problem.__cause__)
            await worker.stop(self._cancel_grace)
        await worker.wait()
        self._running.pop(ident, None)
        self._note_failure(slot, str(problem or report["error"]), problem)
        return False

    async def _serve(self, ident: str, worker: OwnWorker, info: WorkerInfo) -> bool:
        """Lets a worker be called; returns whether it drains, or has ended."""
        self.workers[ident] = info
        self._on_change()
        leaving = self._leaving[ident] = asyncio.get_running_loop().create_future()
        exited = asyncio.ensure_future(self._reap(ident, worker))
        async with self._announced(info):
            await asyncio.wait([leaving, exited], return_when=asyncio.FIRST_COMPLETED)
        return leaving.done()

    @contextlib.asynccontextmanager
    async def _announced(self, info: WorkerInfo) -> AsyncGenerator[None]:
        """Lets others find a worker."""
        if self._discovery is None:
            yield
            return
        announcing = Announcing(self._discovery, info)
        opening = asyncio.create_task(_announce(announcing))
        try:
            yield
        finally:
            opening.cancel()
            await asyncio.wait([opening])
            try:
                await announcing.aclose()
            except WoolError as error:
                _log.warning("%s", error)

    async def _reap(self, ident: str, worker: OwnWorker) -> None:
        """Waits for a worker to end, however long it takes to drain."""
        try:
            await worker.wait()
            self._leave(ident)  # before its callers learn of it, who may wait for another one
            self._on_end(ident)
        finally:
            self._running.pop(ident, None)

    def _leave(self, ident: str) -> None:
        self._leaving.pop(ident, None)
        if self.workers.pop(ident, None) is not None:
            self._on_change()

    def _forget_failures(self, slot: int) -> None:
        del self._failures[slot]
        if not self._failures:
            self.failure = ""

    def _note_failure(self, slot: int, reason: str, problem: WoolError | None = None) -> None:
        """A worker could not be started; where too many cannot, calls need not wait for another."""
        self._failures[slot] += 1
        if problem is None and reason != self.failure:  # other slots may do well, and hide it
            _log_worker.warning("a worker could not be started: %s", reason)
        self.failure = reason
        total = self._failures.total()
        if total >= MOST_FAILURES and len(self._slots) - len(self._failures) < self._quorum:
            failure = NoWorkersAvailable(
                f"{total} workers in a row ended before they were ready: {reason}. Their "
                "standard error says more"
            )
            failure.__cause__ = None if problem is None else problem.__cause__
            self._on_failure(failure)


async def _announce(announcing: Announcing) -> None:
    """Has a worker announced; a discovery that fails is asked again.

    It cannot make the pool fail, which knows its own workers without it.
    """
    delay, told = RETRY_FIRST, ""
    while True:
        try:
            return await announcing.open()
        except WoolError as error:
            if str(error) != told:
                told = str(error)
                _log.warning("%s", told)
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_MOST)
