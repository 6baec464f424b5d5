"""Classes that travel by value, and sentinels, keep their identity.

A class of `__main__`, of a notebook or of a function body cannot be imported elsewhere, so its
definition travels. Still it must stay one class: an exception of the caller's own class that
comes back from a worker is caught by the caller's `except`. So every such class has a key, made
where it was defined, and each process keeps a table of keys. Payloads name the key; the
definition goes only to a receiver that lacks it, and a class that is known is never modified. An
object such as `MISSING = object()`, which code compares with `is`, has a key as well.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from wool._forks import after_fork

PROCESS_BYTES = 8
KEY_BYTES = PROCESS_BYTES + 8

LIMIT = 10_000
"""So many sentinels are kept of which no weak references can be had. Older ones are forgotten."""


class IdentityTable:
    """The classes of one process that travel by value, its sentinels, and the keys of both."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._renew()
        self._keys: dict[int, bytes] = {}
        self._objects: dict[bytes, Callable[[], Any]] = {}
        self._kept: deque[bytes] = deque()  # of those that would be forgotten otherwise
        self._unfinished: set[bytes] = set()
        self._filling: dict[bytes, int] = {}  # by which thread

    def _renew(self) -> None:
        self.process = os.urandom(PROCESS_BYTES)
        """Identifies this process: its keys begin with it."""
        self._numbers = count(1)

    def forked(self) -> None:
        """Makes a forked child another process than its parent: it will define other classes."""
        self.lock = threading.RLock()
        self._renew()

    def key(self, obj: object) -> bytes:
        """Returns the key of a class or sentinel, a new one if it was made here."""
        with self.lock:
            key = self._keys.get(id(obj))
            if key is None:
                key = self.new_key()
                self._add(key, obj)
            return key

    def new_key(self) -> bytes:
        """Makes a key that no other process makes."""
        return self.process + next(self._numbers).to_bytes(KEY_BYTES - PROCESS_BYTES, "big")

    def find(self, key: bytes) -> type | None:
        """Returns the class with this key, if this process knows it and has all of it."""
        here = threading.get_ident()
        partial = key in self._unfinished or self._filling.get(key, here) != here
        return None if partial else self._get(key)

    def make(self, key: bytes, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
        """Returns the class with this key, made from its definition unless it is known."""
        with self.lock:
            cls = self._get(key)
            if cls is None:
                cls = make(*arguments)
                self._unfinished.add(key)  # first: who looks for it takes no lock
                self._add(key, cls)
            return cls

    def finish(
        self, cls: type, key: bytes, set_state: Callable[[type, Any], Any], state: Any
    ) -> None:
        """Fills in the body of a class that `make` has just made; leaves others alone."""
        with self.lock:
            if key not in self._unfinished:
                return
            self._filling[key] = threading.get_ident()
            self._unfinished.discard(key)
            try:
                set_state(cls, state)
            except BaseException:
                self._forget(key, id(cls))
                raise
            finally:
                del self._filling[key]

    def sentinel(self, key: bytes, make: Callable[[], Any]) -> Any:
        """Returns the sentinel with this key, made unless it is known."""
        with self.lock:
            found = self._get(key)
            if found is None:
                self._add(key, found := make())
            return found

    def _get(self, key: bytes) -> Any:
        known = self._objects.get(key)
        return None if known is None else known()

    def _add(self, key: bytes, obj: object) -> None:
        number = id(obj)
        try:
            self._objects[key] = weakref.ref(obj, lambda _: self._forget(key, number))
        except TypeError:  # such as a plain `object()`
            self._objects[key] = lambda: obj
            self._kept.append(key)
        self._keys[number] = key
        if len(self._kept) > LIMIT:
            oldest = self._kept.popleft()
            self._forget(oldest, id(self._get(oldest)))

    def _forget(self, key: bytes, number: int) -> None:
        self._objects.pop(key, None)
        self._keys.pop(number, None)


# The identity of an object is a fact of the process, so its table is too.
IDENTITIES = IdentityTable()
after_fork(IDENTITIES.forked)
