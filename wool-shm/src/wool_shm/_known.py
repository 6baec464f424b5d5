"""The workers of a namespace, put together from what the records tell."""

from __future__ import annotations

from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo


class Known:
    """A watcher's knowledge.

    A worker that several records tell of is there as long as one of them does; what was told last
    counts.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}  # of workers, by the names of records
        self._told: dict[str, dict[str, WorkerInfo]] = {}  # by id, then by record; the last counts

    def snapshot(self) -> Snapshot:
        """Returns all workers."""
        return Snapshot([worker for ident in self._told if (worker := self._worker(ident))])

    def names(self) -> list[str]:
        """Returns the names of the records."""
        return list(self._ids)

    def note(self, name: str, worker: WorkerInfo | None) -> Event | None:
        """Notes what a record tells now, and returns what has changed by that.

        Args:
            worker: the same one each time; None: the record is gone.
        """
        ident = self._ids.pop(name, None) or (worker.id if worker is not None else "")
        before = self._worker(ident)
        told = self._told.setdefault(ident, {})
        if worker is None or worker.id != ident:
            told.pop(name, None)
        else:
            self._ids[name] = ident
            if told.get(name) != worker:
                told.pop(name, None)
                told[name] = worker
        if not told:
            del self._told[ident]
        after = self._worker(ident)
        if before == after:
            return None
        if before is None:
            return Joined(after) if after is not None else None
        return Changed(after) if after is not None else Left(before)

    def _worker(self, ident: str) -> WorkerInfo | None:
        told = self._told.get(ident)
        return told[next(reversed(told))] if told else None
