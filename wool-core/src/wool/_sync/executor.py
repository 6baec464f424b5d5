"""`Executor`: plain functions on the workers of a pool, as `concurrent.futures` has it."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import inspect
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from functools import lru_cache, partial
from itertools import chain, islice
from types import FunctionType, TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from wool._pool.worker_pool import WorkerPool
from wool._sync.plain import apply, applying, initialized
from wool._worker.loops import LoopThread
from wool.exceptions import BrokenWorkerPool, NoWorkersAvailable, WorkerLost, WorkerStopped

P = ParamSpec("P")
T = TypeVar("T")

AHEAD = 2
"""Functions that each worker has at most: the one that it runs, and the one that is next."""

FUNCTIONS = 64
"""So many functions are kept as routines, which were used last."""


class Executor(concurrent.futures.Executor):
    """Runs plain functions on workers, one at a time on each.

    It does what `concurrent.futures.ProcessPoolExecutor` does, with these differences: functions
    and arguments travel as those of routines do, so they may be lambdas, closures and functions of
    `__main__`; exceptions arrive with the worker's own traceback; a worker that dies is replaced,
    and only what it had fails. A function may run an event loop of its own.

    Workers start with the first function that is submitted, on the event loop of a thread.

    Args:
        max_workers: how many workers to start; by default as `size` says, as for a `WorkerPool`.
        initializer: a function that each worker which the pool starts calls before anything else,
            with `initargs`. If it raises, that is as for a lifespan of `WorkerPool`.
        options: as for `WorkerPool`.

    Raises:
        ValueError: `max_workers` is not positive.
        TypeError, ConfigurationError, PluginError: an argument has no usable value.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None:
            if not callable(initializer):
                raise TypeError("initializer must be a callable")
            if "lifespan" in options:
                raise TypeError("initializer along with lifespan: call it there")
            options["lifespan"] = partial(initialized, initializer, tuple(initargs))
        options.setdefault("concurrency", 1)
        size = options.pop("size", None) if max_workers is None else max_workers
        self._engine = _Engine(WorkerPool(size, **options))
        weakref.finalize(self, self._engine.close).atexit = False

    @property
    def _max_workers(self) -> int:  # a name that others look for, such as Dask
        return self._engine.size

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Has a function run on a worker.

        The future can be cancelled until a worker has been given the function. It raises what the
        function raises; `SerializationError` if something cannot be sent; `BrokenWorkerPool` if
        its worker was lost, or there is none.

        Raises:
            RuntimeError: the executor has been shut down.
            BrokenWorkerPool: its workers could not be started.
            TypeError: the function is async.
        """
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"an executor runs plain functions, and {getattr(fn, '__qualname__', fn)}() is "
                "async: call it with wool.SyncPool, or with `await` inside of a wool.WorkerPool"
            )
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._engine.put(_Work(future, fn, args, kwargs))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """Calls a function with the items of iterables, and yields the results in their order.

        Args:
            timeout: seconds from this call in which a result has to be there when it is its turn.
            chunksize: so many items go to a worker at a time.
            options: `buffersize`, where Python has it (3.14): how many may be submitted ahead.

        Raises:
            TimeoutError: by the iterator: a result was not there in time.
            ValueError: `chunksize` is not positive.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)

        def call_all(chunk: list[Any]) -> list[T]:
            return [fn(*args) for args in chunk]

        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(islice(items, chunksize)), [])
        return chain.from_iterable(super().map(call_all, chunks, timeout=timeout, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more functions; those that it has been given are run first.

        Args:
            wait: for them, and for the workers to end. As the interpreter ends, it waits anyway.
            cancel_futures: cancels those that no worker has been given.
        """
        self._engine.close(cancel=cancel_futures)
        if wait:
            self._engine.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Ctrl-C would end the processes of other executors; it does not reach these by itself.
        if isinstance(error, KeyboardInterrupt):
            self._engine.abort()
        self.shutdown()


class _Work(NamedTuple):
    future: concurrent.futures.Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Engine:
    """The queue of an executor, and the thread whose loop has the pool.

    It knows no executor: one that nobody has any more is collected, and what it was given is run.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._view = pool
        self._pool = pool._pool
        self._pool.shared = False  # routines of the program know nothing of it
        self._queue: deque[_Work] = deque()
        self._out: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._news = asyncio.Event()
        self._applying = lru_cache(FUNCTIONS)(applying)
        self._closing = False
        self._failure: BaseException | None = None
        atexit.register(self._at_exit)

    @property
    def size(self) -> int:
        """How many workers it starts or has, as far as is known; at least 1."""
        return max(1, self._pool.most)

    # On any thread ------------------------------------------------------------------------------

    def put(self, work: _Work) -> None:
        """Adds a function, and starts the thread with the first one."""
        with self._lock:
            if self._failure is not None:
                raise _broken_by(self._failure)
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._queue.append(work)
            if self._thread is None:
                self._thread = LoopThread(self._pool._plan.core.loop, "wool-executor")
                # In a context of its own: what the first caller has set is not for all.
                self._running = Context().run(self._thread.submit, self._run())
        self._thread.call(self._news.set)

    def close(self, *, cancel: bool = False) -> None:
        """Takes no more."""
        with self._lock:
            self._closing = True
        if cancel:
            self._drop(None)
        if self._thread is None:
            atexit.unregister(self._at_exit)
        else:
            self._thread.call(self._news.set)

    def abort(self) -> None:
        """Takes no more, and cancels what there is; workers that compute are ended."""
        self.close(cancel=True)
        if self._thread is not None:
            self._running.cancel()

    def join(self) -> None:
        """Waits until all is done and the workers have ended."""
        if self._thread is not None:
            self._thread.join()

    def _at_exit(self) -> None:
        self.close()
        self.join()

    def _take(self) -> _Work | None:
        try:
            return self._queue.popleft()
        except IndexError:  # another thread may have been first
            return None

    def _drop(self, error: BaseException | None) -> None:
        """Ends what no worker has been given: cancels it, if there is no error."""
        while (work := self._take()) is not None:
            future = work.future
            if error is None:
                future.cancel()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    # On its own thread --------------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._thread is not None
        try:
            async with self._view:
                while True:
                    self._news.clear()
                    self._fill()
                    if self._closing and not self._queue and not self._out:
                        break
                    await self._news.wait()
        except BaseException as error:
            with self._lock:
                self._failure = error
            self._drop(_broken_by(error))
        finally:
            atexit.unregister(self._at_exit)
            self._thread.stop()

    def _fill(self) -> None:
        """Gives workers what they can take."""
        room = AHEAD * self.size - len(self._out)
        while room > 0 and (work := self._take()) is not None:
            if work.future.set_running_or_notify_cancel():
                room -= 1
                task = asyncio.create_task(self._give(work))
                self._out.add(task)
                task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._out.discard(task)
        self._news.set()

    async def _give(self, work: _Work) -> None:
        future, function, args, kwargs = work
        try:
            while isinstance(function, partial):
                args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
                function = function.func
            if isinstance(function, FunctionType):
                value = await self._applying(function)(*args, **kwargs)
            else:
                value = await apply(function, *args, **kwargs)
        except (NoWorkersAvailable, WorkerLost, WorkerStopped) as error:
            future.set_exception(_broken_by(error))
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)


def _broken_by(error: BaseException) -> BrokenWorkerPool:
    """Returns the error for functions that another one has kept from running, or to their end."""
    if isinstance(error, WorkerLost):
        facts: dict[str, Any] = vars(error)
    else:
        facts = {"outcome": "unknown" if isinstance(error, WorkerStopped) else "not started"}
    broken = BrokenWorkerPool(str(error), **facts)
    broken.__cause__ = error
    return broken
