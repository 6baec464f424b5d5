"""Objects that are nothing but themselves, such as `MISSING = object()`.

Code compares them with `is`, so they have to stay one object although the functions that mention
them travel one at a time. As with classes, each has a key, and a process makes one for each key.
"""

from __future__ import annotations

import sys
import typing
import weakref
from collections.abc import Callable
from typing import Any

from wool._code.identity import CLASSES
from wool._code.loading import find_in_module
from wool._code.modules import Modules
from wool._code.names import find_name, findable

_DEFAULTS = ("__eq__", "__hash__", "__reduce__", "__reduce_ex__", "__getstate__")

_PLAIN = frozenset({object, getattr(typing, "TypeAliasType", object)})
"""Of these no weak references can be had."""

LIMIT = 100_000
"""So many of them are kept. Older ones are forgotten."""

_type: Callable[[Any], Any] = type


class SentinelTable:
    """The sentinels of one process, and their keys."""

    def __init__(self) -> None:
        self._plain: dict[bytes, object] = {}
        self._plain_keys: dict[int, bytes] = {}
        self._others: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        self._other_keys: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()
        self._homes: dict[bytes, tuple[str, str] | None] = {}

    def key(self, obj: Any) -> bytes:
        """Returns the key of a sentinel, a new one if it was made here."""
        with CLASSES.lock:
            plain = _type(obj) in _PLAIN
            key = self._plain_keys.get(id(obj)) if plain else self._other_keys.get(obj)
            if key is None:
                key = CLASSES.new_key()
                self._add(key, obj)
            return key

    def find(self, key: bytes, make: Callable[[], Any]) -> Any:
        """Returns the sentinel with this key, made unless it is known."""
        with CLASSES.lock:
            found: Any = self._plain.get(key, self._others.get(key))
            if found is None:
                found = make()
                self._add(key, found)
            return found

    def home(self, key: bytes, obj: Any) -> tuple[str, str] | None:
        """Returns the module and name that a sentinel is bound to wherever that is imported."""
        if key not in self._homes:
            if len(self._homes) > LIMIT:
                self._homes.clear()
            self._homes[key] = _find_home(obj)
        return self._homes[key]

    def _add(self, key: bytes, obj: Any) -> None:
        if _type(obj) not in _PLAIN:
            self._others[key] = obj
            self._other_keys[obj] = key
            return
        self._plain[key] = obj
        self._plain_keys[id(obj)] = key
        if len(self._plain) > LIMIT:
            oldest = next(iter(self._plain))
            del self._plain_keys[id(self._plain.pop(oldest))]


# As the table of classes.
SENTINELS = SentinelTable()


def is_sentinel(obj: Any) -> bool:
    """Whether an object has no state, is compared by identity, and says nothing on pickling."""
    cls = _type(obj)
    if any(getattr(cls, name) is not getattr(object, name) for name in _DEFAULTS):
        return False
    if cls is not object and not cls.__weakrefoffset__:
        return False
    try:
        return object.__reduce_ex__(obj, 4)[1:] == ((cls,), None, None, None)
    except TypeError:  # something written in C, which has state of its own
        return False


def reduce_sentinel(obj: Any, modules: Modules) -> tuple[Any, ...]:
    """Reduces a sentinel, for use in a pickler's `reducer_override`."""
    key = SENTINELS.key(obj)
    home = SENTINELS.home(key, obj)
    if home is None:
        return find_sentinel, (key, type(obj))
    travels = modules.name(vars(sys.modules[home[0]])) is not None
    return (find_in_module, home) if travels else (find_name, (":".join(home),))


def find_sentinel(key: bytes, cls: Any) -> Any:
    """Units name this function to refer to a sentinel."""
    return SENTINELS.find(key, lambda: cls.__new__(cls))


def _find_home(obj: Any) -> tuple[str, str] | None:
    """Returns the module and name a sentinel is bound to, unless only `__main__` has it."""
    for name, module in list(sys.modules.items()):
        scope = getattr(module, "__dict__", {})
        if any(value is obj for value in list(scope.values())) and findable(name):
            return name, next(n for n, value in list(scope.items()) if value is obj)
    return None
