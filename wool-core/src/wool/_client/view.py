"""`PoolView`: what those who call routines see of a pool."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from wool._client.calltree import CallTree, all_calls
from wool._client.current import ACTIVE, ActivePool, named_pool
from wool._protocol.status import CallStatus
from wool._workerinfo import WorkerInfo

P = ParamSpec("P")
T = TypeVar("T")


class PoolView:
    """A pool, as those who call routines see it."""

    def __init__(self, pool: ActivePool) -> None:
        self._pool = pool

    def __repr__(self) -> str:
        pool: ActivePool | None = vars(self).get("_pool")  # None while it is made
        if pool is None or pool.closed:
            return f"<{type(self).__name__}: not open>"
        count = len(pool.workers)
        return f"<{type(self).__name__}: {count} worker{'s' if count != 1 else ''}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("pools are not sent anywhere: a routine's own is wool.current_pool()")

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers of the pool as they are known now, each with its load as far as known.

        Of one that was found by its address only, nothing else is known until it is connected.
        """
        return self._pool.workers

    @contextmanager
    def use(self) -> Generator[None]:
        """Makes calls of this context, and of tasks started in it, use this pool.

        Raises:
            WorkerStopped: the pool is not open.
        """
        self._pool.check_open()
        before = ACTIVE.get()
        ACTIVE.set(self._pool)
        try:
            yield
        finally:
            # Not reset(token): the pool may be left in another context than it was entered in.
            if ACTIVE.get() is self._pool:
                ACTIVE.set(before)

    async def wait(self, n: int, *, timeout: float | None = None) -> None:
        """Waits until the pool has at least `n` workers; cancelling that changes nothing.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            NoWorkersAvailable: there were fewer after `timeout` seconds, or there will be none.
            AuthenticationError, VersionMismatch: the same, and that is why.
            WorkerStopped: the pool has been closed.
        """
        await self._pool.wait(n, timeout=timeout)

    async def broadcast(
        self, routine: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[tuple[WorkerInfo, T | BaseException], None]:
        """Calls a routine once on each worker, and yields each worker with what came of it there.

        The workers are those that the pool has at the first step, and that offer the tags of the
        routine; they come in the order in which they answer. An exception of the routine is yielded
        in place of a result, and so is the error of a worker that has left meanwhile:
        `WorkerStopped` if it was told to, else `WorkerLost`, whose `outcome` tells whether the
        routine can have begun. Leaving the loop early cancels the calls that are out, and waits for
        them.

        Raises:
            TypeError: at the first step: the arguments are wrong, or no async function was given.
            WorkerStopped: likewise: the pool is not open.
        """
        self._pool.check_open()
        call = functools.partial(routine, *args, **kwargs)
        tags: frozenset[str] = getattr(getattr(routine, "__wool__", None), "tags", frozenset())
        # Of a worker that has no id yet nothing is known.
        workers = [w for w in self.workers if not w.id or tags <= w.tags]
        tasks = [asyncio.ensure_future(self._ask(worker, call)) for worker in workers]
        try:
            for answer in asyncio.as_completed(tasks):
                yield await answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self, worker: WorkerInfo, call: Callable[[], Coroutine[Any, Any, T]]
    ) -> tuple[WorkerInfo, T | BaseException]:
        """Makes a call that is for one worker, in a context of its own."""
        ACTIVE.set(self._pool.only(worker))
        called = call()
        try:
            return worker, await called
        except BaseException as error:
            return worker, error

    async def calls(self) -> list[CallStatus]:
        """Returns the calls that its workers have, and those that wait for one.

        Workers answer on a thread that user code does not use, so also one that is blocked does.
        One that has not answered within a second is left out; its calls are as their callers know
        them.

        Raises:
            WorkerStopped: the pool is not open.
        """
        self._pool.check_open()
        return all_calls(await self._pool.inspect())

    async def tree(self) -> CallTree:
        """Returns who awaits whom, from the tasks of this process to the lines that wait.

        `str()` of it is a drawing. Raises as `calls` does.
        """
        self._pool.check_open()
        return CallTree(await self._pool.inspect())


def current_pool() -> PoolView | None:
    """Returns the pool that a routine called here would use, None if it would run locally.

    On a worker that is a view of the pool that the running call belongs to: it has `workers`,
    `wait` and `use`, as a `WorkerPool` has.

    Raises:
        WoolError: several pools are open and the context names none.
    """
    pool = named_pool()
    view = None if pool is None else pool.view
    assert view is None or isinstance(view, PoolView)
    return view
