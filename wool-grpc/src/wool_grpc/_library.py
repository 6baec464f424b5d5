"""gRPC itself, imported here and nowhere else, and the thread that it lives on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from wool import WoolError

T = TypeVar("T")

CHOICES = {
    # It would print every failed TLS handshake, also those of strangers, on standard error.
    "GRPC_VERBOSITY": "NONE",
    # It would have forked children carry on with its threads, of which they die. A child that does
    # not use gRPC needs nothing of it, and one that wants to call has to open a pool of its own.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


def _load() -> Any:
    """Imports gRPC with settings of ours, unless somebody else has made some.

    gRPC reads them when it is imported; processes started later shall not inherit our choice.
    """
    chosen = {name: value for name, value in CHOICES.items() if name not in os.environ}
    if "grpc" in sys.modules:
        chosen = {}
    os.environ.update(chosen)
    try:
        return importlib.import_module("grpc.aio")
    finally:
        for name in chosen:
            del os.environ[name]


aio: Any = _load()
grpc: Any = importlib.import_module("grpc")

_PROCESS = os.getpid()

_NEEDED = 16
"""Files that gRPC and the loop of its thread may want to open when they start."""

_PATIENCE = 5.0
"""Seconds that the last tasks of gRPC have to end."""


class _Loop(asyncio.SelectorEventLoop):
    """A loop that ignores what comes too late: gRPC tells of operations that were given up, too."""

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise
            return asyncio.Handle(callback, args, self)


Running = concurrent.futures.Future[None]


class GrpcThread:
    """The thread of a transport on which gRPC lives, while there is something to do there.

    `grpc.aio` expects that nobody cancels its tasks, and that its loop outlives its objects. On
    loops of users neither holds: `asyncio.run` cancels all tasks at its end, while connections
    still have to finish their work. So gRPC has a loop of its own. It ends after all its tasks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[Running] = set()
        self._threads: set[threading.Thread] = set()
        weakref.finalize(self, _leave, self._running, self._threads)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Running:
        """Begins to run a coroutine function on the thread, until what is returned is cancelled.

        Raises:
            WoolError: this process is a fork of one that has loaded gRPC.
            OSError: there are too many open files.
        """
        check_process()
        with self._lock:
            _check_room()
            loop = self._loop
            if loop is None:
                loop = self._loop = _Loop()
                args = (loop,)
                thread = threading.Thread(
                    target=self._run, args=args, name="wool-grpc", daemon=True
                )
                self._threads.add(thread)
                thread.start()
            running = asyncio.run_coroutine_threadsafe(work(), loop)
            self._running.add(running)
        running.add_done_callback(self._ended)
        return running

    def _ended(self, running: Running) -> None:
        with self._lock:
            self._running.discard(running)
            if self._loop is not None and not self._running:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
            loop.run_until_complete(_last_tasks())
        finally:
            loop.close()
            self._threads.discard(threading.current_thread())


async def _last_tasks() -> None:
    """Waits for gRPC's own tasks, which complain if the loop is closed before they have ended."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        done, left = await asyncio.wait(tasks, timeout=_PATIENCE)
        if not done:
            for task in left:
                task.cancel()


def _leave(running: set[Running], threads: set[threading.Thread]) -> None:
    """Ends what still runs when the process ends."""
    for each in list(running):
        each.cancel()
    for thread in list(threads):
        thread.join(_PATIENCE)


def settle(future: asyncio.Future[T], result: T | BaseException) -> None:
    """Gives a future its result, on any thread; nothing happens if that is of no use any more."""

    def on_its_loop() -> None:
        if future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(on_its_loop)


def check_process() -> None:
    """Checks that this is the process that has loaded gRPC: in a forked child it would hang.

    Raises:
        WoolError: it is a child.
    """
    if os.getpid() != _PROCESS:
        raise WoolError(
            f"process {os.getpid()} is a fork of process {_PROCESS}, which has loaded gRPC: there "
            "it would wait for ever. Start processes anew (multiprocessing's method 'spawn'), fork "
            "before the first pool is opened, or choose another transport"
        )


def _check_room() -> None:
    """Checks that gRPC can open files: where it cannot, it ends the process without a word.

    Raises:
        OSError: there may be too many open files soon.
    """
    with contextlib.ExitStack() as opened:
        for _ in range(_NEEDED):
            opened.enter_context(open(os.devnull, "rb", buffering=0))
