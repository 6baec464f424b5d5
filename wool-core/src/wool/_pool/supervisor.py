"""The own workers of a pool: as many as it is to have, kept running."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from wool._client.identity import PYTHON, VERSION
from wool._peer.background import settle
from wool._pool.membership import RETRY_FIRST, RETRY_MOST
from wool._worker.backends import Announcing, ChosenDiscovery
from wool._worker.process import WorkerProcess, describe_exit
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


class OwnWorker(Protocol):
    """A worker that has been started, in a process or a thread of its own."""

    exited: concurrent.futures.Future[int]

    async def ready(self) -> dict[str, Any]:
        """Waits until the worker serves; returns its report, empty if it died before."""
        ...

    async def wait(self) -> int:
        """Waits until it has ended; returns its return code."""
        ...

    async def stop(self, grace: float) -> None:
        """Has the worker end; its calls get `grace` seconds to clean up."""

    def kill(self) -> None:
        """Ends it at once."""


class Supervisor:
    """Keeps workers running: one that ends is replaced, one that drains at once.

    Args:
        size: how many.
        start: starts a worker by this id, in a process that is there already if one is given.
        tags, serializer_name: what is said of the workers.
        discovery: where they are announced.
        prepare: has a worker do what it has to before it is called; returns why it could not.
        cancel_grace: seconds that their calls get to clean up when they are told to end.
        on_change: called when there is one more, or one less.
        on_end: called with the id of a worker that has ended.
        on_failure: called with an error when several in a row could not be started.
        on_abandoned: called when somebody else has cancelled all that keeps workers, and they have
            ended.

    Attributes:
        workers: those that can be called, by id.
    """

    def __init__(
        self,
        size: int,
        start: Callable[[str, WorkerProcess | None], OwnWorker],
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
        self._size = size
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
        self._keepers: list[asyncio.Task[None]] = []
        self._running: dict[str, OwnWorker] = {}
        self._exits: dict[str, concurrent.futures.Future[int]] = {}
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._failures = 0
        self._stopping = False

    def begin(self, early: Sequence[WorkerProcess]) -> None:
        """Starts the workers.

        Args:
            early: processes that have been started for the first of them.
        """
        first = [*early, *[None] * (self._size - len(early))]
        self._keepers = [asyncio.create_task(self._keep(process)) for process in first]
        for keeper in self._keepers:
            keeper.add_done_callback(self._on_kept)

    def _on_kept(self, keeper: asyncio.Task[None]) -> None:
        """Nobody keeps a worker any more: calls need not wait for one."""
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

    async def exit_code(self, ident: str) -> int | None:
        """Returns how a worker ended, as `subprocess` has it; None if it has not."""
        exited = self._exits.get(ident)
        if exited is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_KNOWN_WITHIN):
                await asyncio.shield(asyncio.wrap_future(exited))
        # A loop that was blocked learns of the end, and that the time is up, in one turn.
        return exited.result() if exited.done() else None

    # One worker after another -------------------------------------------------------------------

    async def _keep(self, early: WorkerProcess | None) -> None:
        """Keeps one worker running: starts another one, a little later each time, when it ends."""
        delay = FIRST_DELAY
        while not self._stopping:  # Ctrl-C may have struck before it was known to `stop`
            ident = secrets.token_hex(8)
            began = time.monotonic()
            try:
                worker = self._start(ident, early)
            except (OSError, RuntimeError) as error:
                # No more processes, threads or descriptors, perhaps only for now.
                self._note_failure(str(error))
                delay *= 2
                await asyncio.sleep(min(delay, MOST_DELAY))
                continue
            early = None
            try:
                await self._run(ident, worker)
            except asyncio.CancelledError:
                await worker.stop(self._cancel_grace)
                raise
            finally:
                self._leave(ident)
            delay = FIRST_DELAY if time.monotonic() - began > STABLE_AFTER else delay * 2
            await asyncio.sleep(min(delay, MOST_DELAY))

    async def _run(self, ident: str, worker: OwnWorker) -> None:
        """Lets a worker be called once it is ready; returns when it has ended, or drains."""
        self._running[ident] = worker
        self._exits[ident] = worker.exited
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
                self._failures = 0
                await self._serve(ident, worker, info)
                return
            _log_worker.warning("%s", problem, exc_info=problem.__cause__)
            await worker.stop(self._cancel_grace)
        code = await worker.wait()
        self._running.pop(ident, None)
        reason = problem or report.get("error") or f"the last one {describe_exit(code)}"
        self._note_failure(str(reason), problem)

    async def _serve(self, ident: str, worker: OwnWorker, info: WorkerInfo) -> None:
        """Lets a worker be called; returns when it has ended, or drains."""
        self.workers[ident] = info
        self._on_change()
        leaving = self._leaving[ident] = asyncio.get_running_loop().create_future()
        exited = asyncio.ensure_future(self._reap(ident, worker))
        async with self._announced(info):
            await asyncio.wait([leaving, exited], return_when=asyncio.FIRST_COMPLETED)

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

    def _note_failure(self, reason: str, problem: WoolError | None = None) -> None:
        """A worker could not be started; after some in a row, calls need not wait for another."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            failure = NoWorkersAvailable(
                f"{self._failures} workers in a row ended before they were ready: {reason}. What "
                "they wrote to standard error says more"
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
