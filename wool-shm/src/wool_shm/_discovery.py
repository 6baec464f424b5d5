"""The discovery: workers announced in files, in memory that all processes of a machine share.

Each process has one file for all that it announces in a namespace, under `/dev/shm`, which is
memory and not a disk. To announce, to change and to withdraw a worker is to replace that file as
a whole, by writing another one and renaming it. The alternative, slots in one mapped segment, is
faster to write to, but needs sequence locks, checksums, a lock among writers and a way to repair
what a killed one has left half done. Here there is nothing to repair:

- Each file has a single writer, so writers never wait for each other, nor for readers.
- A reader sees a file before or after a change, never in between.
- The kernel tells when a file has been replaced, and when one has been closed because its process
  is dead; nobody polls, counts heartbeats or compares process ids.
- What a reader knows is what it finds in the directory. Changes only say where to look, so that
  one too many does no harm, and if some are lost the reader looks at everything.
- What is left of a dead process is seen to be so by its lock, and is removed by whoever comes by.

The price is that a change costs in proportion to what its process announces: usually one worker,
or those of one pool.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

from wool.abc import Announcement, Discovery, Event, WorkerInfo
from wool.exceptions import ConfigurationError, WoolError
from wool_shm import Options, _place, _process, _records
from wool_shm._member import Entry, announce
from wool_shm._monitor import Watch, watch


class ShmDiscovery(Discovery):
    """Finds the workers that this user's processes on this machine announce in a namespace.

    May be used from any thread and event loop. A worker whose process ends is gone for all who
    watch as soon as the kernel has closed its files. A forked child announces nothing and watches
    nothing of what its parent did.
    """

    def __init__(self, options: Options) -> None:
        self._base = options.directory
        self._namespace = _place.digest(options.namespace)

    @asynccontextmanager
    async def announce(self, worker: WorkerInfo) -> AsyncGenerator[Announcement]:
        """Makes a worker known; it is known when this returns, to all who watch soon after.

        Raises:
            ConfigurationError: the worker has no id, or the directory cannot be used; says why.
            WoolError: there is no room, or no descriptor left.
        """
        if not worker.id:
            raise ConfigurationError(
                f"the worker at {worker.address} has no id, and cannot be announced"
            )
        directory = _place.directory(self._base)
        with _explained(f"announce the worker {worker.id!r}", directory):
            record = _records.encode(worker)
            entry = announce(_process.this(), directory, self._namespace, record)
        announcement = _Announcement(worker, directory, entry)
        try:
            yield announcement
        finally:
            announcement.leave()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Event]]:
        """Watches the namespace.

        The iterator ends when the context is left. Who does not take events for long gets another
        snapshot in their stead.

        Raises:
            ConfigurationError: the directory cannot be used; says why.
            WoolError: no descriptor is left.
        """
        one = Watch(self._namespace)
        directory = _place.directory(self._base)
        with _explained("watch workers", directory):
            monitor = watch(_process.this(), directory, one)
        try:
            yield one.events
        finally:
            monitor.end(one)


class _Announcement(Announcement):
    def __init__(self, worker: WorkerInfo, directory: str, entry: Entry) -> None:
        self._worker = worker
        self._directory = directory
        self._entry: Entry | None = entry

    async def update(self, worker: WorkerInfo) -> None:
        """Replaces what is announced; if that fails, it is unchanged.

        Raises:
            ValueError: the id is another one.
            RuntimeError: the worker has been withdrawn.
            WoolError: there is no room, or no descriptor left.
        """
        if worker.id != self._worker.id:
            raise ValueError(f"{self._worker.id!r} is announced, not {worker.id!r}")
        if self._entry is None:
            raise RuntimeError(f"the worker {worker.id!r} is not announced any more")
        with _explained(f"announce the worker {worker.id!r}", self._directory):
            self._entry.put(_records.encode(worker))

    def leave(self) -> None:
        """Withdraws the worker."""
        entry, self._entry = self._entry, None
        if entry is not None:
            with _explained(f"withdraw the worker {self._worker.id!r}", self._directory):
                entry.withdraw()


@contextmanager
def _explained(attempt: str, directory: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there" if room else "mend that"
        raise WoolError(
            f"the discovery 'shm' cannot {attempt} in {directory}: {error.strerror}; {remedy}, "
            "or name another place with the setting `directory`"
        ) from error
