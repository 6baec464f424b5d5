"""Workers inside this process, for the `memory` transport: a thread for user code, one for I/O."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from functools import partial
from typing import Any

from wool._worker.executor import Executor
from wool._worker.loops import LoopThread
from wool._worker.process import STOP_SPARE, OwnWorker
from wool._worker.server import Setup
from wool._worker.service import Service
from wool._workerinfo import WorkerInfo


class WorkerThread(OwnWorker):
    """A worker in this process. It has ended when its threads have; there is no return code."""

    def __init__(self, setup: Setup, concurrency: int | None, drain_timeout: float) -> None:
        super().__init__()
        self._ready: concurrent.futures.Future[WorkerInfo] = concurrent.futures.Future()
        self._ready.set_running_or_notify_cancel()  # it starts even if nobody waits for that
        self._stop = asyncio.Event()
        self._grace = 0.0
        self._drain: float | None = None
        self._user = LoopThread("asyncio", "wool-worker")
        try:
            self._io = LoopThread("asyncio")
        except RuntimeError:
            self._user.stop()
            raise
        self._io.ended.add_done_callback(lambda _: self._user.stop())
        self._user.ended.add_done_callback(lambda _: self.exited.set_result(0))
        retire = partial(self._retire, drain_timeout)
        self._service = Service(setup, Executor(self._user.loop, concurrency), retire)
        self._io.submit(self._serve())

    async def ready(self) -> dict[str, Any]:
        try:
            info = await asyncio.wrap_future(self._ready)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"address": info.address, "host": info.host, "pid": info.pid}

    async def stop(self, grace: float) -> None:
        """Has the worker end; leaves its threads behind if they do not."""
        self._grace = grace
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + STOP_SPARE):
                await self.wait()
                self._io.join()
                self._user.join()

    def kill(self) -> None:
        """A thread cannot be killed; it is told to stop."""
        self._io.call(self._stop.set)

    def _retire(self, drain_timeout: float) -> None:
        self._drain = drain_timeout
        self._stop.set()

    async def _serve(self) -> None:
        try:
            try:
                info = await self._service.open()
            except Exception as error:
                self._ready.set_exception(error)
                return
            self._ready.set_result(info)
            await self._stop.wait()
            await self._service.aclose(drain=self._drain, grace=self._grace)
        finally:
            self._io.stop()
