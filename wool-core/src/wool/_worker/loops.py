"""Event loops: how they are made and closed, and one on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wool.exceptions import ConfigurationError

T = TypeVar("T")

EXIT_GRACE = 2.0
"""Seconds that what is left on a loop gets to end once all calls are over."""


def run_until(loop: asyncio.AbstractEventLoop, stopped: Callable[[], bool]) -> None:
    """Runs a loop and closes it; goes on when a task makes it stop or raises SystemExit."""
    while not stopped():
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as error:
            context = {"message": "a task has raised what ends a program", "exception": error}
            loop.call_exception_handler(context)
    close_loop(loop)


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels what is left on a loop that has stopped, and closes it."""
    with contextlib.suppress(Exception):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=EXIT_GRACE))
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Makes an event loop.

    Args:
        kind: `"asyncio"`, `"uvloop"`, or `"auto"` for uvloop's where it is installed.
    """
    if kind == "asyncio":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        if kind == "auto":
            return asyncio.new_event_loop()
        raise ConfigurationError(
            "the setting `loop` is 'uvloop', which is not installed: "
            'pip install "wool-core[uvloop]"'
        ) from None
    return uvloop.new_event_loop()


class LoopThread:
    """Runs a loop until it is stopped, and closes it.

    Args:
        kind: of the loop, as for `new_loop`.

    Attributes:
        ended: done when it has ended.

    Raises:
        RuntimeError: there are no more threads.
    """

    def __init__(self, kind: str, name: str = "wool-io") -> None:
        self.loop = new_loop(kind)
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.ended.set_running_or_notify_cancel()  # it ends even if nobody waits for that
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are no more
            self.loop.close()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            run_until(self.loop, self._stopped.is_set)
        finally:
            self.ended.set_result(None)

    @property
    def is_here(self) -> bool:
        """Whether this is the thread."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs a coroutine there, in a context that is a copy of this one."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there; cancelling cancels it."""
        return await asyncio.wrap_future(self.submit(work))

    def call(self, callback: Callable[[], object]) -> None:
        """Calls back there."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """Has the loop end."""
        self.call(self._stop)

    def _stop(self) -> None:
        self._stopped.set()
        self.loop.stop()

    def join(self) -> None:
        """Waits until it has ended."""
        self._thread.join()

    async def aclose(self) -> None:
        """Ends the thread."""
        self.stop()
        # Not in a thread of asyncio's: there are no new ones once the main thread has ended.
        await asyncio.wrap_future(self.ended)
        self.join()
