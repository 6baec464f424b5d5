"""The discovery: workers announced in files, in memory that all processes of a machine share.

Each worker has a record of its own, see `_records`. The alternative, slots in one mapped segment,
is faster to write to, but needs sequence locks, checksums, a lock among writers and a way to repair
what a killed one has left half done. With files there is nothing to repair, and the kernel tells
watchers when one has been replaced, or closed because its process is dead; nobody polls, counts
heartbeats or compares process ids.

A watcher knows what it finds in the directory. Changes only say where to look, so that one
too many does no harm, and if some are lost the watcher looks at everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

from wool.abc import Announcement, Discovery, Event, WorkerInfo, watching
from wool.exceptions import ConfigurationError, WoolError
from wool_shm import Options, _directory, _records
from wool_shm._changes import Changes
from wool_shm._known import Known

_AT_ONCE = 100  # records that are looked at before others may use the event loop


class ShmDiscovery(Discovery):
    """Finds the workers that this user's processes on this machine announce in a namespace.

    May be used from any thread and event loop. A worker whose process ends is gone for all who
    watch as soon as the kernel has closed its files. A forked child announces nothing of what its
    parent did.
    """

    def __init__(self, options: Options) -> None:
        self._base = options.directory
        self._namespace = _records.digest(options.namespace)
        self._swept = False

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
        directory = _directory.path_of(self._base)
        with _explained(f"announce the worker {worker.id!r}", directory):
            record = _records.Record(directory, self._namespace, worker)
        announcement = ShmAnnouncement(worker, directory, record)
        try:
            if not self._swept:
                self._swept = True
                with suppress(OSError):
                    _records.sweep(directory)
            yield announcement
        finally:
            announcement.withdraw()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Event]]:
        """Watches the namespace.

        Raises:
            ConfigurationError: the directory cannot be used; says why.
            WoolError: no descriptor is left.
        """
        directory = _directory.path_of(self._base)
        changes = Changes(directory)
        try:
            with _explained("watch workers", directory):
                changes.follow()
            try:
                async with watching(self._events(directory, changes)) as events:
                    yield events
            finally:
                _directory.leave(directory)
        finally:
            changes.close()

    async def _events(self, directory: str, changes: Changes) -> AsyncGenerator[Event]:
        known = Known()
        with _explained("watch workers", directory):
            async for name in _slowly(_records.names(directory)):
                self._look(directory, name, known)
            yield known.snapshot()
            while True:
                await changes.wait()
                files = changes.read()
                if files is None:
                    changes.follow()
                    names = [*_records.names(directory), *known.names()]
                else:
                    names = [name for file in files if (name := _records.name_of(file))]
                async for name in _slowly(list(dict.fromkeys(names))):
                    event = self._look(directory, name, known)
                    if event is not None:
                        yield event

    def _look(self, directory: str, name: str, known: Known) -> Event | None:
        if name.startswith(self._namespace):
            return known.note(name, _records.read(directory, name))
        _records.is_alive(directory, name)  # the dead of other namespaces are removed as well
        return None


async def _slowly(names: list[str]) -> AsyncIterator[str]:
    for number, name in enumerate(names, 1):
        yield name
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


class ShmAnnouncement(Announcement):
    """A worker that has a record."""

    def __init__(self, worker: WorkerInfo, directory: str, record: _records.Record) -> None:
        self._worker = worker
        self._directory = directory
        self._record: _records.Record | None = record

    async def update(self, worker: WorkerInfo) -> None:
        """Replaces what is announced; if that fails, it is unchanged.

        Raises:
            ValueError: the id is another one.
            RuntimeError: the worker has been withdrawn.
            WoolError: there is no room, or no descriptor left.
        """
        if worker.id != self._worker.id:
            raise ValueError(f"{self._worker.id!r} is announced, not {worker.id!r}")
        if self._record is None:
            raise RuntimeError(f"the worker {worker.id!r} is not announced any more")
        with _explained(f"announce the worker {worker.id!r}", self._directory):
            self._record.write(worker)

    def withdraw(self) -> None:
        """Ends it."""
        record, self._record = self._record, None
        if record is not None:
            with _explained(f"withdraw the worker {self._worker.id!r}", self._directory):
                record.remove()


@contextmanager
def _explained(attempt: str, directory: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise WoolError(
            f"the discovery 'shm' cannot {attempt} in {directory}: {error.strerror}; mend that, "
            "or name another place with the setting `directory`"
        ) from error
