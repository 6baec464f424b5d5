"""`PoolView`: what those who call routines see of a pool."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wool._client.current import ACTIVE
from wool._workerinfo import WorkerInfo

if TYPE_CHECKING:
    from wool._client.pool import Pool


class PoolView:
    """A pool, as those who call routines see it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __repr__(self) -> str:
        pool: Pool | None = vars(self).get("_pool")  # it may be shown while it is made, in an error
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
