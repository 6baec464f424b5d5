"""What this process announces in one namespace."""

from __future__ import annotations

import contextlib
import os

from wool_shm import _presence, _records
from wool_shm._process import Process
from wool_shm._records import Record


class Member:
    """This process as a member of a namespace. It exists while it announces something.

    Everything is done at once, without waiting for anybody, by any thread that holds the lock of
    the process. Entries are in their order of announcement.
    """

    def __init__(self, process: Process, directory: str, namespace: str) -> None:
        self.process = process
        self.directory = directory
        self._namespace = namespace
        self._entries: dict[Entry, Record] = {}
        self._presence, self._descriptor = _presence.enter(process, directory, namespace)

    def put(self, entry: Entry, record: Record) -> None:
        """Announces or changes an entry; if that fails, nothing has changed."""
        before = self._entries.get(entry)
        self._entries[entry] = record
        try:
            self._publish()
        except BaseException:
            if before is None:
                del self._entries[entry]
            else:
                self._entries[entry] = before
            raise
        finally:
            self._leave_if_empty()

    def remove(self, entry: Entry) -> None:
        """Withdraws an entry; if that fails, it is gone as soon as another one is published."""
        del self._entries[entry]
        try:
            if self._entries and _presence.is_in_place(self._descriptor):
                self._publish()
        finally:
            self._leave_if_empty()

    def _publish(self) -> None:
        if not _presence.is_in_place(self._descriptor):  # somebody has tidied up
            self._leave()
            self._presence, self._descriptor = _presence.enter(
                self.process, self.directory, self._namespace
            )
        _records.write(self.directory, self._presence, self._entries.values())

    def _leave_if_empty(self) -> None:
        if not self._entries:
            self.process.members.pop((self.directory, self._namespace), None)
            self._leave()
            _presence.abandon(self.process, self.directory)

    def _leave(self) -> None:
        _presence.leave(self.process, self.directory, self._presence, self._descriptor)


class Entry:
    """A worker that is announced. After a fork, its methods do nothing in the child."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._pid = os.getpid()

    def put(self, record: Record) -> None:
        """Announces or changes it."""
        if os.getpid() == self._pid:
            with self._member.process.lock:
                self._member.put(self, record)

    def withdraw(self) -> None:
        """Ends it."""
        if os.getpid() == self._pid:
            with self._member.process.lock:
                self._member.remove(self)


def announce(process: Process, directory: str, namespace: str, record: Record) -> Entry:
    """Announces a worker in a namespace, given as its digest."""
    with process.lock:
        member = process.members.get((directory, namespace))
        if member is None:
            member = Member(process, directory, namespace)
            process.members[directory, namespace] = member
            with contextlib.suppress(OSError):
                _presence.sweep(process, directory)
        entry = Entry(member)
        member.put(entry, record)
        return entry
