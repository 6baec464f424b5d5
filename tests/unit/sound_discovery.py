"""Two sound discoveries of few lines: files that announcers keep locked; a board in memory."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from wool import abc

LOOK = 0.003
"""Seconds between two looks into the folder."""


class FolderAnnouncement(abc.Announcement):
    def __init__(self, folder: Path, worker: abc.WorkerInfo) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{worker.id}.json"
        self.lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.write(worker)

    def write(self, worker: abc.WorkerInfo) -> None:
        fields = {name: getattr(worker, name) for name in worker.__slots__}
        fields["tags"] = sorted(worker.tags)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(fields))
        new.rename(self.path)

    async def update(self, worker: abc.WorkerInfo) -> None:
        self.write(worker)

    def withdraw(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self.lock)


class FolderWatch(AsyncIterator[Any]):
    """Looks again and again, and queues what is different."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue: deque[Any] = deque()
        self.woken = asyncio.Event()
        self.ended = False
        self.start()

    def start(self) -> None:
        self.known = self.look()
        self.put(abc.Snapshot(list(self.known.values())))
        self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.compare(self.look())

    def compare(self, found: dict[str, abc.WorkerInfo]) -> None:
        before, self.known = self.known, found
        for key in before.keys() - found.keys():
            self.put(abc.Left(before[key]))
        for key, worker in found.items():
            if key not in before:
                self.put(abc.Joined(worker))
            elif worker != before[key]:
                self.put(abc.Changed(worker))

    def look(self) -> dict[str, abc.WorkerInfo]:
        found: dict[str, abc.WorkerInfo] = {}
        paths: list[Path] = []
        with suppress(OSError):  # another thread may be removing the folder
            paths = sorted(self.folder.glob("*.json"))
        for path in paths:
            with suppress(OSError):
                if self.is_alive(path):
                    worker = self.read(path.read_text())
                    found[worker.id] = worker
        return found

    def read(self, text: str) -> abc.WorkerInfo:
        fields = json.loads(text)
        fields["tags"] = frozenset(fields["tags"])
        fields["serializers"] = tuple(fields["serializers"])
        return abc.WorkerInfo(**fields)

    def is_alive(self, path: Path) -> bool:
        """Whether somebody keeps it locked; else it is removed."""
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
        return False

    def put(self, event: Any) -> None:
        self.queue.append(event)
        self.woken.set()

    async def __anext__(self) -> Any:
        while True:
            if self.ended:
                raise StopAsyncIteration
            if self.queue:
                return self.queue.popleft()
            self.woken.clear()
            await self.woken.wait()

    async def restart(self) -> None:
        """As after a lost connection."""
        self.task.cancel()
        self.start()

    async def aclose(self) -> None:
        self.ended = True
        self.woken.set()
        self.task.cancel()
        await asyncio.wait([self.task])


class FolderDiscovery(abc.Discovery):
    Announcement = FolderAnnouncement
    Watch = FolderWatch

    def __init__(self, namespace: str, watches: list[FolderWatch]) -> None:
        self.folder = Path(tempfile.gettempdir(), namespace)
        self.watches = watches

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        announcement = self.Announcement(self.folder, worker)
        try:
            yield announcement
        finally:
            announcement.withdraw()
            with suppress(OSError):
                self.folder.rmdir()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Any]]:
        watch = self.Watch(self.folder)
        self.watches.append(watch)
        try:
            yield watch
        finally:
            self.watches.remove(watch)
            await watch.aclose()


# Workers are on a board that all instances of this process look at --------------------


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
