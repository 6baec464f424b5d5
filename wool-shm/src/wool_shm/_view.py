"""The workers of one namespace, put together from what its processes say."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo
from wool_shm import _records
from wool_shm._records import Record

_log = logging.getLogger("wool.shm")


class View:
    """What is known of one namespace.

    A worker that several processes announce is there as long as one of them does; what was said
    last counts.
    """

    def __init__(self) -> None:
        self._said: dict[str, dict[Record, WorkerInfo]] = {}  # by presence
        self._workers: dict[str, dict[str, WorkerInfo]] = {}  # by id, then by presence; last counts

    def snapshot(self) -> Snapshot:
        """Returns all workers."""
        return Snapshot(tuple(_last(said) for said in self._workers.values()))

    def presences(self) -> list[str]:
        """Returns the processes that say anything."""
        return list(self._said)

    def replace(self, presence: str, records: Sequence[Record]) -> list[Event]:
        """Notes what a process says now, and returns what has changed by that."""
        before = self._said.get(presence, {})
        if list(before) == list(records):
            return []
        after = {
            record: worker
            for record in dict.fromkeys(records)
            if (worker := before.get(record) or _decoded(record)) is not None
        }
        if after:
            self._said[presence] = after
        else:
            self._said.pop(presence, None)
        old = {worker.id: worker for worker in before.values()}
        new = {worker.id: worker for worker in after.values()}
        changed = [worker for worker in new.values() if old.get(worker.id) != worker]
        events = [self._put(presence, worker) for worker in changed]
        events += [self._drop(presence, worker) for worker in old.values() if worker.id not in new]
        return [event for event in events if event is not None]

    def _put(self, presence: str, worker: WorkerInfo) -> Event | None:
        said = self._workers.setdefault(worker.id, {})
        before = _last(said) if said else None
        said.pop(presence, None)
        said[presence] = worker
        if before is None:
            return Joined(worker)
        return Changed(worker) if before != worker else None

    def _drop(self, presence: str, worker: WorkerInfo) -> Event | None:
        said = self._workers[worker.id]
        before = _last(said)
        del said[presence]
        if not said:
            del self._workers[worker.id]
            return Left(before)
        after = _last(said)
        return Changed(after) if before != after else None


def _last(said: dict[str, WorkerInfo]) -> WorkerInfo:
    return said[next(reversed(said))]


def _decoded(record: Record) -> WorkerInfo | None:
    try:
        return _records.decode(record)
    except msgspec.MsgspecError as error:
        _log.warning("a worker that another process announces is ignored: %s", error)
        return None
