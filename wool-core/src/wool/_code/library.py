"""Objects in code that pickle does not know: parts of the standard library that hold a lock, weak
references or a cache, or are compared by identity, but come to no more than what they were made
from.
"""

from __future__ import annotations

import functools
import io
import struct
import sys
import typing
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wool._code.identity import IDENTITIES
from wool._code.modules import Modules
from wool._code.names import findable
from wool.exceptions import SerializationError

_type: Callable[[Any], Any] = type

Reduce = Callable[[Any, Modules], Any]
"""Returns what a pickler's `reducer_override` does."""

_PARAMETERS = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
_ALIAS: Any = getattr(typing, "TypeAliasType", None)  # since Python 3.12


def _reduce_file(file: io.TextIOWrapper, modules: Modules) -> Any:
    """Refuses open files, of which cloudpickle would send what is left to read.

    The standard streams are those of the receiver.
    """
    if file in (sys.stdin, sys.stdout, sys.stderr):
        return NotImplemented
    raise SerializationError(
        f"the open file {file.name!r} belongs to this process: pass its path and open it in the "
        "routine, or pass what it contains"
    )


def _reduce_cached(function: Any, modules: Modules) -> Any:
    """Reduces a function with a cache, unless it can be found and so names itself."""
    if modules.importable(function) or modules.qualified_name(function) is not None:
        return NotImplemented
    return make_cached, (function.__wrapped__, function.cache_parameters())


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Pickles name this function to make a function with a cache, which is empty."""
    return functools.lru_cache(**parameters)(function)


def _reduce_property(obj: Any, modules: Modules) -> Any:
    return make_property, (obj.func, obj.attrname, obj.__doc__)


def make_property(func: Any, name: str | None, doc: str | None) -> Any:
    """Pickles name this function to make a cached property."""
    made: Any = functools.cached_property(func)
    made.attrname, made.__doc__ = name, doc
    return made


def _reduce_partial_method(obj: Any, modules: Modules) -> Any:
    return make_partial_method, (obj.func, obj.args, obj.keywords)


def make_partial_method(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Pickles name this function to make a partial method."""
    return functools.partialmethod(func, *args, **keywords)


def _reduce_declared(obj: Any, modules: Modules) -> Any:
    """Reduces what annotations are made of to its name, unless it can be found and so names itself.

    The type it stands for may lead back to it, and is of interest to type checkers alone.
    """
    module = sys.modules.get(obj.__module__)
    if getattr(module, obj.__name__, None) is obj and (
        findable(obj.__module__) or modules.name(vars(module)) is not None
    ):
        return NotImplemented
    cls = _type(obj)
    stands_for = (obj.__supertype__,) if cls is typing.NewType else (Any,) if cls is _ALIAS else ()
    return make_declared, (IDENTITIES.key(obj), cls, obj.__module__, obj.__name__, *stands_for)


def make_declared(key: bytes, cls: Any, module: str, *of: Any) -> Any:
    """Pickles name this function to refer to what is one object wherever it is mentioned."""

    def make() -> Any:
        made = cls(*of)
        with suppress(AttributeError):  # of some it cannot be set
            made.__module__ = module
        return made

    return IDENTITIES.sentinel(key, make)


def _made_of(*names: str) -> Reduce:
    """Returns what reduces objects to the attributes that they are made of again."""
    return lambda obj, _: (_type(obj), tuple(getattr(obj, name) for name in names))


def _copied(obj: Any, modules: Modules) -> Any:
    return _type(obj), ((list if _type(obj) is weakref.WeakSet else dict)(obj),)


LIBRARY: dict[Any, Reduce] = {
    # Compared by identity:
    **dict.fromkeys((*_PARAMETERS, typing.NewType, _ALIAS), _reduce_declared),
    # The file behind it stays here:
    io.TextIOWrapper: _reduce_file,
    # They have a lock, a cache or weak references; what they were made of travels:
    functools.cached_property: _reduce_property,
    functools.partialmethod: _reduce_partial_method,
    struct.Struct: _made_of("format"),
    typing.ForwardRef: _made_of("__forward_arg__"),
    typing.ParamSpecArgs: _made_of("__origin__"),
    typing.ParamSpecKwargs: _made_of("__origin__"),
    weakref.WeakKeyDictionary: _copied,
    weakref.WeakSet: _copied,
    weakref.WeakValueDictionary: _copied,
    type(functools.lru_cache(len)): _reduce_cached,
}
"""By the types themselves: what derives from them may be something else."""
