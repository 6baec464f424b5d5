"""What code is full of and pickle does not know: parts of the standard library that hold a lock,
weak references or a cache, but come to no more than what they were made from.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from wool._serialization.travelling import Modules

_CACHED = type(functools.lru_cache(len))
_type: Callable[[Any], Any] = type
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


def reduce_library(obj: Any, modules: Modules) -> Any:
    """Reduces such an object, for use in a pickler's `reducer_override`."""
    cls = _type(obj)
    if cls is _CACHED:  # which names itself, whoever can find that
        if modules.importable(obj) or modules.reference(obj) is not None:
            return NotImplemented
        return make_cached, (obj.__wrapped__, obj.cache_parameters())
    if cls is functools.cached_property:  # has a lock before Python 3.12
        return make_cached_property, (obj.func, obj.attrname, obj.__doc__)
    if cls in _WEAK:  # `functools.singledispatch` has one
        return cls, (dict(obj),)
    if cls is weakref.WeakSet:
        return cls, (list(obj),)
    return NotImplemented


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Pickles name this function to make a function with a cache, which is empty."""
    return functools.lru_cache(**parameters)(function)


def make_cached_property(func: Any, name: str | None, doc: str | None) -> Any:
    """Pickles name this function to make a property."""
    made: Any = functools.cached_property(func)
    made.attrname, made.__doc__ = name, doc
    return made
