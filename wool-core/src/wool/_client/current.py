"""Which pool a call uses, and which call is running.

Both are facts of the current context. Where the context says nothing, the only pool open in this
process is used: a web framework opens it in one task, and its handlers run in others.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

from wool._client.poolbase import PoolBase
from wool._forks import after_fork
from wool._peer.running import RUNNING, CurrentCall
from wool.exceptions import WoolError

ACTIVE: ContextVar[PoolBase | None] = ContextVar("wool_pool", default=None)


class OpenPools:
    """The pools open in this process."""

    def __init__(self) -> None:
        self._pools: list[PoolBase] = []  # replaced as a whole, for it is read on any thread
        self._lock = threading.Lock()

    def add(self, pool: PoolBase) -> None:
        """Notes that a pool is open."""
        with self._lock:
            self._pools = [*self._pools, pool]

    def remove(self, pool: PoolBase) -> None:
        """Notes that a pool is closed."""
        with self._lock:
            self._pools = [other for other in self._pools if other is not pool]

    def only(self) -> PoolBase | None:
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

    def forked(self) -> None:
        """Forgets the pools of the parent process: their connections are not ours."""
        self._pools = []
        self._lock = threading.Lock()


# "The only pool open in this process" is a fact of the process, so its list is too.
OPEN = OpenPools()
after_fork(OPEN.forked)


def choose_pool() -> PoolBase | None:
    """Returns the pool a call made here and now uses; None: run it locally.

    Raises:
        WoolError: several pools are open and the context names none.
        WorkerStopped: the context names a pool that has closed.
    """
    pool = named_pool()
    if pool is not None:
        pool.check_open()
    return pool


def named_pool() -> PoolBase | None:
    """Returns the pool of the context, which may be that of the running call, else the only one."""
    pool = ACTIVE.get()
    return OPEN.only() if pool is None else pool


def current_call() -> CurrentCall | None:
    """Returns the call that this code runs in, None outside of a routine on a worker.

    It has an `id`, that of the call it was made from as `parent` (None if there is none), the
    `WorkerInfo` of the `worker` that runs it, and in `caller` where it came from, as the transport
    tells: `host:port`, or `unix socket`.
    """
    running = RUNNING.get()
    return None if running is None else running.info
