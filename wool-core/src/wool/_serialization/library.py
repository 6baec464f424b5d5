"""What code is full of and pickle does not know: methods of classes, and parts of the standard
library that hold a lock, weak references or a cache, but come to no more than what they were made
from.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import typing
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

from wool._serialization.modules import findable
from wool._serialization.travelling import Modules

_CACHED = type(functools.lru_cache(len))
_type: Callable[[Any], Any] = type
_PARAMETERS = (typing.ParamSpec, typing.TypeVarTuple)
_PARTS = (typing.ParamSpecArgs, typing.ParamSpecKwargs)
_ALIAS: Any = getattr(typing, "TypeAliasType", None)  # since Python 3.12
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_KNOWN = frozenset(
    {_CACHED, MethodType, functools.cached_property, weakref.WeakSet, typing.NewType, _ALIAS}
    | {*_WEAK, *_PARAMETERS, *_PARTS}
)


def reduce_library(obj: Any, modules: Modules) -> Any:
    """Reduces such an object, for use in a pickler's `reducer_override`."""
    cls = _type(obj)
    if cls not in _KNOWN:  # as good as every object
        return NotImplemented
    if cls is _CACHED:  # which names itself, whoever can find that
        if modules.importable(obj) or modules.reference(obj) is not None:
            return NotImplemented
        return make_cached, (obj.__wrapped__, obj.cache_parameters())
    if cls is MethodType:
        return _reduce_method(obj)
    if cls is functools.cached_property:  # has a lock before Python 3.12
        return make_cached_property, (obj.func, obj.attrname, obj.__doc__)
    if cls in _WEAK:  # `functools.singledispatch` has one
        return cls, (dict(obj),)
    if cls is weakref.WeakSet:
        return cls, (list(obj),)
    return _reduce_typing(obj, cls, modules)


def _reduce_method(method: MethodType) -> Any:
    """Reduces a method of a class by its name: its function alone has none."""
    owner: Any = method.__self__
    name = method.__name__
    if not isinstance(owner, type) or getattr(owner, name, None) != method:
        return NotImplemented
    return getattr, (owner, name)


def _reduce_typing(obj: Any, cls: Any, modules: Modules) -> Any:
    """Reduces what annotations are made of, and names itself as well."""
    if cls in _PARTS:
        return cls, (obj.__origin__,)
    module = sys.modules.get(obj.__module__)
    if getattr(module, obj.__name__, None) is obj and (
        findable(obj.__module__) or modules.name(vars(module)) is not None
    ):
        return NotImplemented
    if cls in _PARAMETERS:
        return cls, (obj.__name__,)
    if cls is typing.NewType:
        return cls, (obj.__name__, obj.__supertype__)
    with contextlib.suppress(Exception):  # names in it may be for the eyes of a checker alone
        if obj not in _aliases(obj.__value__, set()):
            return make_alias, (obj.__name__, obj.__value__, obj.__type_params__)
    return typing.ForwardRef, (obj.__name__,)


def _aliases(value: Any, found: set[Any]) -> set[Any]:
    """Adds the aliases that a type leads to: one that leads to itself cannot be made from it."""
    if type(value) is _ALIAS and value not in found:
        found.add(value)
        _aliases(value.__value__, found)
    for part in getattr(value, "__args__", ()):
        _aliases(part, found)
    return found


def make_alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    """Pickles name this function to make what the statement `type` does."""
    return _ALIAS(name, value, type_params=parameters)


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Pickles name this function to make a function with a cache, which is empty."""
    return functools.lru_cache(**parameters)(function)


def make_cached_property(func: Any, name: str | None, doc: str | None) -> Any:
    """Pickles name this function to make a property."""
    made: Any = functools.cached_property(func)
    made.attrname, made.__doc__ = name, doc
    return made
