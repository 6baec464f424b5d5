"""A discovery within one process: workers are on a board that all its instances look at."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wool import abc


class Board:
    """Who is there, and who wants to know; several threads use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.workers: dict[str, abc.WorkerInfo] = {}
        self.watches: list[Watch] = []

    def put(self, worker: abc.WorkerInfo) -> None:
        with self.lock:
            kind = abc.Changed if worker.id in self.workers else abc.Joined
            if self.workers.get(worker.id) != worker:
                self.workers[worker.id] = worker
                self.tell(kind(worker))

    def remove(self, worker: abc.WorkerInfo) -> None:
        with self.lock:
            self.tell(abc.Left(self.workers.pop(worker.id)))

    def tell(self, event: Any) -> None:
        for watch in self.watches:
            watch.loop.call_soon_threadsafe(watch.put, event)


class Watch(AsyncIterator[Any]):
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: deque[Any] = deque()
        self.news = asyncio.Event()
        self.ended = False

    def put(self, event: Any) -> None:
        self.events.append(event)
        self.news.set()

    def end(self) -> None:
        self.ended = True
        self.news.set()

    async def __anext__(self) -> Any:
        while not self.ended:
            if self.events:
                return self.events.popleft()
            self.news.clear()
            await self.news.wait()
        raise StopAsyncIteration


class BoardDiscovery(abc.Discovery):
    def __init__(self, board: Board) -> None:
        self.board = board

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        class Announcement(abc.Announcement):
            async def update(_, worker: abc.WorkerInfo) -> None:
                self.board.put(worker)

        self.board.put(worker)
        try:
            yield Announcement()
        finally:
            self.board.remove(worker)

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
        watch = Watch()
        with self.board.lock:
            watch.put(abc.Snapshot(list(self.board.workers.values())))
            self.board.watches.append(watch)
        try:
            yield watch
        finally:
            with self.board.lock:
                self.board.watches.remove(watch)
            watch.end()
