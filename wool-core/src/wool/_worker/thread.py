"""Workers inside this process, for the `memory` transport: a thread for user code, one for I/O."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from functools import partial
from typing import Any

from wool._worker.executor import Executor
from wool._worker.loops import close_loop
from wool._worker.main import run_until
from wool._worker.process import STOP_SPARE
from wool._worker.server import Setup
from wool._worker.service import Service
from wool._workerinfo import WorkerInfo


class WorkerThread:
    """A worker in this process.

    Attributes:
        exited: done when its threads have ended; there is no return code.
    """

    waiting = ""

    def __init__(self, setup: Setup, concurrency: int | None, drain_timeout: float) -> None:
        self.exited: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._ready: concurrent.futures.Future[WorkerInfo] = concurrent.futures.Future()
        self._ready.set_running_or_notify_cancel()  # it starts even if nobody waits for that
        self._stopping = threading.Event()
        self._user_loop = asyncio.new_event_loop()
        self._io_loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        retire = partial(self._retire, drain_timeout)
        self._service = Service(setup, Executor(self._user_loop, concurrency), retire)
        self._grace = 0.0
        self._drain: float | None = None
        self._threads = [
            threading.Thread(target=self._run_io, name="wool-io", daemon=True),
            threading.Thread(target=self._run_user, name="wool-worker", daemon=True),
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # there are no more
            self._user_loop.close()
            if self._threads[0].ident is None:
                self._io_loop.close()
            self.kill()
            raise

    async def ready(self) -> dict[str, Any]:
        """Waits until the worker serves; returns its report, or why it does not."""
        try:
            info = await asyncio.wrap_future(self._ready)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"address": info.address, "host": info.host, "pid": info.pid}

    async def wait(self) -> int:
        """Waits until the threads have ended."""
        return await asyncio.shield(asyncio.wrap_future(self.exited))

    async def stop(self, grace: float) -> None:
        """Has the worker end; leaves its threads behind if they do not.

        Args:
            grace: seconds that its calls get to clean up.
        """
        self._grace = grace
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + STOP_SPARE):
                await self.wait()
                for thread in self._threads:
                    thread.join()

    def describe(self, code: int) -> str:
        """Says how it has ended."""
        return "has ended"

    def kill(self) -> None:
        """A thread cannot be killed; it is told to stop."""
        with contextlib.suppress(RuntimeError):  # it has stopped
            self._io_loop.call_soon_threadsafe(self._stop.set)

    def _retire(self, drain_timeout: float) -> None:
        self._drain = drain_timeout
        self._stop.set()

    async def _serve(self) -> None:
        try:
            self._ready.set_result(await self._service.open())
        except Exception as error:
            self._ready.set_exception(error)
            return
        await self._stop.wait()
        await self._service.aclose(drain=self._drain, grace=self._grace)

    def _run_io(self) -> None:
        self._io_loop.run_until_complete(self._serve())
        close_loop(self._io_loop)
        self._stopping.set()
        with contextlib.suppress(RuntimeError):  # it has never run
            self._user_loop.call_soon_threadsafe(self._user_loop.stop)

    def _run_user(self) -> None:
        run_until(self._user_loop, self._stopping.is_set)
        self.exited.set_result(0)
