"""Objects that are nothing but themselves, such as `MISSING = object()`.

Code compares them with `is`, so they have to stay one object although the functions that mention
them travel one at a time. As with classes, each has a key, and a process makes one for each key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from wool._code.identity import IDENTITIES
from wool._code.loading import find_in_module
from wool._code.modules import Modules
from wool._code.names import find_name, findable

_DEFAULTS = ("__eq__", "__hash__", "__reduce__", "__reduce_ex__", "__getstate__")

_type: Callable[[Any], Any] = type


def is_sentinel(obj: Any) -> bool:
    """Whether an object has no state, is compared by identity, and says nothing on pickling."""
    cls = _type(obj)
    if any(getattr(cls, name) is not getattr(object, name) for name in _DEFAULTS):
        return False
    try:
        return object.__reduce_ex__(obj, 4)[1:] == ((cls,), None, None, None)
    except TypeError:  # something written in C, which has state of its own
        return False


def reduce_sentinel(obj: Any, modules: Modules) -> tuple[Any, ...]:
    """Reduces a sentinel, for use in a pickler's `reducer_override`."""
    home = _find_home(obj)
    if home is None:
        return find_sentinel, (IDENTITIES.key(obj), type(obj))
    travels = modules.name(vars(sys.modules[home[0]])) is not None
    return (find_in_module, home) if travels else (find_name, (":".join(home),))


def find_sentinel(key: bytes, cls: Any) -> Any:
    """Units name this function to refer to a sentinel."""
    return IDENTITIES.sentinel(key, lambda: cls.__new__(cls))


def _find_home(obj: Any) -> tuple[str, str] | None:
    """Returns the module and name a sentinel is bound to, unless only `__main__` has it."""
    for name, module in list(sys.modules.items()):
        scope = getattr(module, "__dict__", {})
        if any(value is obj for value in list(scope.values())) and findable(name):
            return name, next(n for n, value in list(scope.items()) if value is obj)
    return None
