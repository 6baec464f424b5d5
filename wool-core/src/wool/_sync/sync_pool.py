"""`SyncPool`: a pool for programs that have no event loop."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from wool._client.view import PoolView
from wool._pool.worker_pool import WorkerPool
from wool._worker.loops import LoopThread
from wool.exceptions import WoolError

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class SyncPool(PoolView):
    """A pool whose routines are called by code that is not async, from any thread.

    Its event loop is on a thread of its own. Context variables of the calling thread are visible in
    routines; what those set stays there. The async methods of a pool can be used as well:
    `pool.call(pool.wait, 4)`, `pool.stream(pool.broadcast, routine)`,
    `pool.stream(wool.map, routine, inputs)`.

    Args:
        size, options: as for `WorkerPool`, which also says what is raised when it is made and when
            it is entered.
    """

    def __init__(self, size: int | tuple[int, int] | None = None, **options: Any) -> None:
        self._opened = WorkerPool(size, **options)
        self._thread: LoopThread | None = None
        super().__init__(self._opened._pool)

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise WoolError("the pool is open already; make another one to have two")
        self._thread = LoopThread(self._opened._pool._plan.core.loop, "wool-sync")
        try:
            self._wait(self._opened.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._wait(self._opened.__aexit__(kind, error, traceback))
        finally:
            self._end()

    def _end(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            thread.join()

    def call(
        self, routine: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Calls an async function and waits for it; a routine runs on a worker.

        Ctrl-C cancels it.

        Raises:
            WorkerStopped: the pool is not open; and whatever the function raises.
            WoolError: this is the pool's own thread, which would wait for itself.
        """
        if self._thread is not None and self._thread.is_here:
            raise WoolError("the pool's own thread cannot wait for a call: `await` it instead")
        future = self.submit(routine, *args, **kwargs)
        try:
            return future.result()
        finally:
            future.cancel()  # if it goes on: the wait was interrupted

    def submit(
        self, routine: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Calls an async function and does not wait; cancelling the future cancels the call.

        Raises:
            WorkerStopped: the pool is not open.
        """
        return self._submit(self._inside(routine, *args, **kwargs))

    def stream(
        self, routine: Callable[P, AsyncGenerator[T, S]], *args: P.args, **kwargs: P.kwargs
    ) -> Generator[T, S, None]:
        """Iterates over an async generator; a routine runs on a worker, step by step.

        Leaving the loop early closes it, and waits for its `finally`. `send` and `throw` reach it.

        Raises:
            WorkerStopped: at the first step: the pool is not open.
        """
        stream = routine(*args, **kwargs)
        step: Callable[[Any], Coroutine[Any, Any, T]] = stream.asend
        given: Any = None
        try:
            while True:
                try:
                    value = self.call(step, given)
                except StopAsyncIteration:
                    return
                try:
                    given, step = (yield value), stream.asend
                except GeneratorExit:
                    raise
                except BaseException as error:
                    given, step = error, stream.athrow
        finally:
            self._close(stream)

    def _close(self, stream: AsyncGenerator[Any, Any]) -> None:
        if self._thread is not None:  # else it has been closed with the pool
            closing = self._submit(stream.aclose())
            if not self._thread.is_here:  # as it is where garbage happens to be collected there
                closing.result()

    async def _inside(
        self, routine: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self.use():
            return await routine(*args, **kwargs)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._submit(work).result()

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        thread = self._thread
        if thread is None:
            work.close()
            raise self._opened._pool.closed_error()
        return thread.submit(work)
