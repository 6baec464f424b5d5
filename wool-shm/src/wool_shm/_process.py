"""What a process has once, however many threads, event loops and discoveries it has."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wool_shm._member import Member
    from wool_shm._monitor import Monitor


class Process:
    """A process, for as long as it does not fork: the child begins with nothing.

    A child must not keep its parent's descriptors open, or the parent's death would not be
    noticed. So descriptors are opened and closed under `lock`, which a fork waits for, too.

    Attributes:
        lock: guards everything here and in members, and every look at a file that is locked.
        members: what is announced, by directory and digest of the namespace.
        monitors: who watches, by directory.
        presences: our own.
    """

    def __init__(self) -> None:
        self._start()
        os.register_at_fork(
            before=self._hold,
            after_in_parent=self._release,
            after_in_child=self._begin_anew,
        )

    def _start(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.members: dict[tuple[str, str], Member] = {}
        self.monitors: dict[str, Monitor] = {}
        self.presences: set[str] = set()
        self._descriptors: set[int] = set()

    def _hold(self) -> None:
        self.lock.acquire()

    def _release(self) -> None:
        self.lock.release()

    def _begin_anew(self) -> None:
        inherited = self._descriptors
        self._start()
        for descriptor in inherited:
            os.close(descriptor)

    def keep(self, descriptor: int) -> int:
        """Notes an open descriptor; the caller holds the lock since before it was opened."""
        self._descriptors.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Closes a descriptor that was kept."""
        with self.lock:
            self._descriptors.discard(descriptor)
            os.close(descriptor)


_THIS = Process()  # made by the import, which happens once, whatever threads there are


def this() -> Process:
    """Returns the process that runs this."""
    return _THIS
