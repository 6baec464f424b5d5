"""What gRPC gets to see of an event loop.

`grpc.aio` assumes that a loop outlives every call that is made on it. It does not: `asyncio.run`
cancels all tasks, those of gRPC included, while connections still have to finish their work; and
what arrives for a loop that has been closed makes another loop of the process fail. So gRPC gets a
`LoopProxy`, whose tasks nobody else can end and which loses what comes too late.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any

Owner = Any

_ANSWERING = "_schedule_rpc_coro"
"""What gRPC calls the coroutine in which a server has a call handled, and sees it end."""


class LoopProxies:
    """The proxies of the loops on which a transport is in use."""

    def __init__(self) -> None:
        self._proxies: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopProxy]
        self._proxies = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self) -> LoopProxy:
        """Returns the proxy of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            proxy = self._proxies.get(loop)
            if proxy is None:
                proxy = self._proxies[loop] = LoopProxy(loop)
            return proxy


class LoopProxy:
    """Stands for an event loop towards gRPC, also after that loop has been closed.

    It has the methods that gRPC calls, and does not keep the loop alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._answering: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    @contextlib.contextmanager
    def posing(self) -> Generator[None]:
        """Makes this the running loop for whoever asks, while objects of gRPC are being made."""
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        try:
            yield
        finally:
            asyncio._set_running_loop(loop)

    def _open(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("the event loop is closed")
        return loop

    def is_closed(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()

    def is_running(self) -> bool:
        loop = self._loop()
        return loop is not None and loop.is_running()

    def create_future(self) -> asyncio.Future[Any]:
        return self._open().create_future()

    def create_task(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> Any:
        """Makes a task that is not among `asyncio.all_tasks()`, so it is not cancelled with them.

        If the loop is closed before it has ended, it vanishes without a word.
        """
        if self.is_closed():
            work.close()
            nothing = Future[Any]()
            nothing.cancel()
            return nothing
        task = asyncio.Task(work, loop=self._open(), name=name)
        asyncio._unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        if work.__qualname__ == _ANSWERING:
            self._answering.add(task)
        return task

    async def answered(self, timeout: float) -> None:
        """Waits until servers have seen all their calls end, at most `timeout` seconds.

        A server stops before that, and prints a traceback if its loop is closed in between.
        """
        if pending := [task for task in self._answering if not task.done()]:
            await asyncio.wait(pending, timeout=timeout)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        loop = self._loop()
        if loop is None:
            return
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits for this
            if asyncio._get_running_loop() is loop:
                loop.call_soon(callback, *args)
            else:
                loop.call_soon_threadsafe(callback, *args)

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self._open().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        return not self.is_closed() and self._open().remove_reader(fd)


def at_once(callback: Callable[..., object], *args: Any) -> None:
    callback(*args)


class Operation:
    """An operation of gRPC that is driven without a task, so that it survives those of the loop.

    It begins at once. When it ends, `then` is called with its owner, its result and the exception,
    unless the owner is gone.

    Args:
        call: calls back on the thread of the loop, if the operation is begun on another one.
    """

    __slots__ = ("_owner", "_then", "_work")

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        owner: weakref.ref[Owner],
        then: Callable[[Owner, Any, BaseException | None], None],
        call: Callable[..., object] = at_once,
    ) -> None:
        self._work = work
        self._owner = owner
        self._then = then
        self._step(call=call)

    def _step(self, _: object = None, call: Callable[..., object] = at_once) -> None:
        try:
            future = self._work.send(None)
        except StopIteration as stop:
            call(self._end, stop.value, None)
        except (KeyboardInterrupt, SystemExit) as error:
            call(self._end, None, error)
            raise
        except BaseException as error:
            call(self._end, None, error)
        else:
            future._asyncio_future_blocking = False
            call(future.add_done_callback, self._step)

    def _end(self, result: Any, error: BaseException | None) -> None:
        owner = self._owner()
        if owner is not None:
            self._then(owner, result, error)
