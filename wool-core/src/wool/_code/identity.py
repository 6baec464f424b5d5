"""Classes that travel by value keep their identity.

A class of `__main__`, of a notebook or of a function body cannot be imported elsewhere, so its
definition travels. Still it must stay one class: an exception of the caller's own class that
comes back from a worker is caught by the caller's `except`. So every such class has a key, made
where it was defined, and each process keeps a table of keys. Payloads name the key; the
definition goes only to a receiver that lacks it, and a class that is known is never modified.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any, Generic, TypeVar

from wool._forks import after_fork

PROCESS_BYTES = 8
KEY_BYTES = PROCESS_BYTES + 8


V = TypeVar("V")


class ByClass(Generic[V]):
    """Facts about classes while they live, whatever their metaclass says to comparing them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[type], V]] = {}

    def get(self, cls: type) -> V | None:
        known = self._known.get(id(cls))
        return None if known is None else known[1]

    def __setitem__(self, cls: type, value: V) -> None:
        number = id(cls)
        gone = weakref.ref(cls, lambda _: self._known.pop(number, None))
        self._known[number] = gone, value

    def __delitem__(self, cls: type) -> None:
        del self._known[id(cls)]


class ClassTable:
    """The classes of one process that travel by value, and their keys."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._renew()
        self._keys = ByClass[bytes]()
        self._classes: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()
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

    def key(self, cls: type) -> bytes:
        """Returns the key of a class, a new one if it was defined here."""
        with self.lock:
            key = self._keys.get(cls)
            if key is None:
                key = self.new_key()
                self._add(key, cls)
            return key

    def new_key(self) -> bytes:
        """Makes a key that no other process makes."""
        return self.process + next(self._numbers).to_bytes(KEY_BYTES - PROCESS_BYTES, "big")

    def find(self, key: bytes) -> type | None:
        """Returns the class with this key, if this process knows it and has all of it."""
        here = threading.get_ident()
        partial = key in self._unfinished or self._filling.get(key, here) != here
        return None if partial else self._classes.get(key)

    def make(self, key: bytes, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
        """Returns the class with this key, made from its definition unless it is known."""
        with self.lock:
            cls = self._classes.get(key)
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
                del self._keys[cls], self._classes[key]
                raise
            finally:
                del self._filling[key]

    def _add(self, key: bytes, cls: type) -> None:
        self._keys[cls] = key
        self._classes[key] = cls


# Class identity is a fact of the process, so its table is too.
CLASSES = ClassTable()
after_fork(CLASSES.forked)
