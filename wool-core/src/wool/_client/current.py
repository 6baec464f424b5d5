"""The pool that a call uses, and the call that is running.

Both are facts of the current context. Where the context says nothing, the only pool open in this
process is used: a web framework opens it in one task, and its handlers run in others.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from wool._forks import after_fork
from wool._peer.running import RUNNING, CurrentCall, CurrentWorker
from wool._protocol.status import ProcessStatus
from wool._workerinfo import WorkerInfo
from wool.exceptions import NoWorkersAvailable, WoolError


class ActivePool:
    """A pool as those see it who call routines; nothing here needs what makes the calls.

    Attributes:
        closed: whether it is not open.
        view: the object that users hold.
        call: calls a routine on a worker; gives its result or its exception.
        stream: prepares a stream; its first step opens it.
    """

    closed: bool = True
    view: object
    call: Callable[
        [Any, tuple[Any, ...], dict[str, Any]],
        Coroutine[Any, Any, tuple[Any, BaseException | None]],
    ]
    stream: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers as they are known now."""
        raise NotImplementedError

    @property
    def most(self) -> int:
        """How many workers there are, or may be as soon as they are needed."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Raises WorkerStopped if it cannot be used."""
        raise NotImplementedError

    def only(self, worker: WorkerInfo) -> ActivePool:
        """Returns the pool as calls see it that are for one of its workers."""
        raise NotImplementedError

    async def inspect(self) -> list[ProcessStatus]:
        """Asks the processes that calls of the pool may be in what they are doing."""
        raise NotImplementedError

    async def wait(self, n: int, *, timeout: float | None = None) -> None:
        """Waits until there are at least `n` workers; see `PoolView`."""
        raise NotImplementedError


ACTIVE: ContextVar[ActivePool | None] = ContextVar("wool_pool", default=None)


class OpenPools:
    """The pools open in this process."""

    def __init__(self) -> None:
        self._pools: list[ActivePool] = []  # replaced as a whole, for it is read on any thread
        self._used: weakref.WeakSet[ActivePool] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._local: bool | None = None

    def add(self, pool: ActivePool) -> None:
        """Notes that a pool is open."""
        with self._lock:
            self._pools = [*self._pools, pool]

    def remove(self, pool: ActivePool) -> None:
        """Notes that a pool is closed."""
        with self._lock:
            self._pools = [other for other in self._pools if other is not pool]

    def note(self, pool: ActivePool) -> None:
        """Notes that a pool is used here, and is of no use in a fork of this process."""
        with self._lock:
            self._used.add(pool)

    def only(self) -> ActivePool | None:
        """Returns the one open pool, None if there is none.

        Raises:
            WoolError: there are several.
        """
        pools = self._pools
        if not pools:
            return None
        if len(pools) > 1:
            raise WoolError(
                f"{len(pools)} pools are open and this context names none of them: say which with "
                "`with pool.use():`"
            )
        return pools[0]

    @property
    def may_run_locally(self) -> bool:
        """The setting `run_locally`, read once: whether routines run where no pool is open."""
        if self._local is None:
            from wool._settings.settings import Settings  # no pool has needed it

            self._local = bool(Settings.peek("run_locally"))
        return self._local

    def forked(self) -> None:
        """Forgets the pools of the parent process: their connections are not ours."""
        self._pools = []
        self._lock = threading.Lock()
        for pool in self._used:
            pool.closed = True


# "The only pool open in this process" is a fact of the process, so its list is too.
OPEN = OpenPools()
after_fork(OPEN.forked)


def choose_pool() -> ActivePool | None:
    """Returns the pool a call made here and now uses; None: run it locally.

    Raises:
        WoolError: several pools are open and the context names none.
        WorkerStopped: the context names a pool that has closed.
    """
    pool = ACTIVE.get() or OPEN.only()
    if pool is not None:
        if pool.closed:
            pool.check_open()
    elif not OPEN.may_run_locally:
        raise local_error("the setting `run_locally` is off")
    return pool


def choose_elsewhere() -> ActivePool:
    """Stands in for `choose_pool` where a routine must not run locally.

    Raises:
        NoWorkersAvailable: no pool is open; and what `choose_pool` raises.
    """
    pool = choose_pool()
    if pool is None:
        raise local_error("the routine says local=False")
    return pool


def local_error(reason: str) -> NoWorkersAvailable:
    """Returns the error for a call that must not run locally."""
    return NoWorkersAvailable(
        f"no pool is open here, and {reason}: call inside `async with wool.WorkerPool()`, or name "
        "a pool with `with pool.use():`"
    )


def named_pool() -> ActivePool | None:
    """Returns the pool of the context, which may be that of the running call, else the only one."""
    return ACTIVE.get() or OPEN.only()


def current_call() -> CurrentCall | None:
    """Returns the call that this code runs in, None outside of a routine on a worker.

    It has an `id`, that of the call it was made from as `parent` (None if there is none), the
    `WorkerInfo` of the `worker` that runs it, and in `caller` where it came from, as the transport
    tells: `host:port`, or `unix socket`.
    """
    running = RUNNING.get()
    return None if running is None else running.info


def current_worker() -> CurrentWorker:
    """Returns the worker that runs this code: its `info`, and the `state` its lifespan has yielded.

    Raises:
        WoolError: this code does not run in a routine on a worker; see `current_call` to know.
    """
    running = RUNNING.get()
    if running is None:
        raise WoolError(
            "no worker runs this code, so there is no state of one: call it as a routine, inside "
            "`async with wool.WorkerPool(lifespan=…)`; transport='memory' keeps it in this process"
        )
    return CurrentWorker(running.info.worker, running.lifespan.state)
