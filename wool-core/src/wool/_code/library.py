"""What code is full of and pickle does not know: methods of classes, and parts of the standard
library that hold a lock, weak references or a cache, but come to no more than what they were made
from.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import struct
import sys
import typing
import weakref
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, cast

from wool._code.modules import Modules
from wool._code.names import find_name, findable
from wool._code.sentinels import SENTINELS
from wool.exceptions import SerializationError

_MANAGER: Any = cast(Any, contextlib)._GeneratorContextManager
_CACHED = type(functools.lru_cache(len))
_type: Callable[[Any], Any] = type
_PARAMETERS = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
_PARTS = (typing.ParamSpecArgs, typing.ParamSpecKwargs)
_ALIAS: Any = getattr(typing, "TypeAliasType", None)  # since Python 3.12
_MADE_OF = (
    "__args__",
    "__bases__",
    "__bound__",
    "__constraints__",
    "__default__",
    "__orig_bases__",
    "__origin__",
    "__parameters__",
    "__value__",
)
_DESCRIPTORS: tuple[Any, ...] = (property, classmethod, staticmethod)
_REDUCERS = ("__reduce__", "__reduce_ex__", "__getstate__")
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_KNOWN = frozenset(
    {object, _CACHED, MethodType, functools.cached_property, weakref.WeakSet, typing.NewType}
    | {functools.partialmethod, io.TextIOWrapper, struct.Struct, typing.ForwardRef}
    | {_MANAGER, _ALIAS, *_WEAK, *_PARAMETERS, *_PARTS}
)


def reduce_library(obj: Any, modules: Modules) -> Any:
    """Reduces what pickle does not know, for use in a pickler's `reducer_override`."""
    cls = _type(obj)
    if cls not in _KNOWN:  # as good as every object
        return NotImplemented
    if cls is object:
        return _reduce_mark(obj)
    if cls is io.TextIOWrapper:
        return _reduce_file(obj)
    if cls is _CACHED:  # which names itself, whoever can find that
        if modules.importable(obj) or modules.qualified_name(obj) is not None:
            return NotImplemented
        return make_cached, (obj.__wrapped__, obj.cache_parameters())
    if cls is MethodType:
        return _reduce_method(obj)
    if cls is functools.cached_property:  # has a lock before Python 3.12
        return make_cached_property, (obj.func, obj.attrname, obj.__doc__)
    if cls is _MANAGER:  # which decorates a function, say, and is made anew for each call of that
        begun = inspect.getgeneratorstate(obj.gen) != inspect.GEN_CREATED
        return NotImplemented if begun else (cls, (obj.func, obj.args, obj.kwds))
    if cls is functools.partialmethod:  # has a descriptor of the interpreter's since Python 3.14
        return make_partial_method, (obj.func, obj.args, obj.keywords)
    if cls is typing.ForwardRef:  # has the globals around it since Python 3.14
        return make_forward, (_text(obj), obj.__forward_module__, obj.__forward_is_class__)
    if cls is struct.Struct:
        return cls, (obj.format,)
    if cls in _WEAK:  # `functools.singledispatch` has one
        return cls, (dict(obj),)
    if cls is weakref.WeakSet:
        return cls, (list(obj),)
    return _reduce_typing(obj, cls, modules)


def _reduce_file(file: io.TextIOWrapper) -> Any:
    """Refuses open files, of which cloudpickle would send what is left to read.

    The standard streams are those of the receiver.
    """
    if file in (sys.stdin, sys.stdout, sys.stderr):
        return NotImplemented
    raise SerializationError(
        f"the open file {file.name!r} belongs to this process: pass its path and open it in the "
        "routine, or pass what it contains"
    )


def _reduce_mark(obj: object) -> Any:
    """Reduces what `inspect.markcoroutinefunction` marks functions with, which is compared by
    identity.
    """
    name = next((name for name, value in vars(inspect).items() if value is obj), None)
    return NotImplemented if name is None else (find_name, (f"inspect:{name}",))


def _reduce_method(method: MethodType) -> Any:
    """Reduces a method of a class by its name: its function alone has none."""
    owner: Any = method.__self__
    name = method.__name__
    if not isinstance(owner, type) or getattr(owner, name, None) != method:
        return NotImplemented
    return getattr, (owner, name)


def reduce_descriptor(obj: Any) -> Any:
    """Reduces a property, class method or static method of a class derived from those, for use in a
    pickler's `reducer_override`.
    """
    cls = _type(obj)
    base = next((base for base in _DESCRIPTORS if issubclass(cls, base)), None)
    if base in (None, cls) or any(getattr(cls, n) is not getattr(object, n) for n in _REDUCERS):
        return NotImplemented
    args = (obj.fget, obj.fset, obj.fdel) if base is property else (obj.__func__,)
    return make_descriptor, (cls, base, args, getattr(obj, "__dict__", {}))


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
        return make_parameter, (SENTINELS.key(obj), cls, obj.__name__, *_declared(obj))
    if cls is typing.NewType:
        return make_new_type, (SENTINELS.key(obj), obj.__name__, obj.__module__, obj.__supertype__)
    value = _evaluated(obj, "__value__", typing.ForwardRef(obj.__name__))
    return make_alias, (SENTINELS.key(obj), obj.__name__, value, obj.__type_params__)


def _text(reference: Any) -> str:
    """Returns what a forward reference says."""
    if sys.version_info < (3, 14):
        return reference.__forward_arg__
    from annotationlib import Format

    return reference.evaluate(format=Format.STRING)


def make_forward(text: str, module: Any, is_class: bool) -> Any:
    """Pickles name this function to refer to a forward reference."""
    return typing.ForwardRef(text, module=module, is_class=is_class)


def _declared(parameter: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the constraints of a type parameter, and what else it was declared with."""
    known = ("covariant", "contravariant", "infer_variance")
    keywords = {name: True for name in known if getattr(parameter, f"__{name}__", False)}
    bound = _evaluated(parameter, "__bound__", typing.Any)
    if bound is not None:
        keywords["bound"] = bound
    if hasattr(parameter, "has_default") and parameter.has_default():  # since Python 3.13
        keywords["default"] = _evaluated(parameter, "__default__", typing.Any)
    return _evaluated(parameter, "__constraints__", ()) or (), keywords


def _evaluated(obj: Any, name: str, otherwise: Any) -> Any:
    """Returns what was declared of something; `otherwise` if it cannot be made from that.

    It may lead back to it, and the names in it may be for the eyes of a checker alone.
    """
    try:
        value = getattr(obj, name, None)
        return otherwise if any(part is obj for part in _parts(value, [])) else value
    except Exception:
        return otherwise


def _parts(value: Any, found: list[Any]) -> list[Any]:
    """Adds all that has to be made before a type is."""
    if isinstance(value, (list, tuple)):
        for part in cast("Iterable[Any]", value):
            _parts(part, found)
    elif not any(value is known for known in found):
        found.append(value)
        for name in _MADE_OF:
            _parts(getattr(value, name, ()), found)
    return found


def make_alias(key: bytes, name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    """Pickles name this function to refer to what a statement `type` has made."""
    return SENTINELS.find(key, lambda: _ALIAS(name, value, type_params=parameters))


def make_parameter(
    key: bytes, cls: Any, name: str, constraints: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    """Pickles name this function to refer to a type parameter, which is one object wherever it is
    mentioned.
    """
    return SENTINELS.find(key, lambda: cls(name, *constraints, **keywords))


def make_new_type(key: bytes, name: str, module: str, supertype: Any) -> Any:
    """Pickles name this function to refer to what `NewType` has made, which is told by identity."""

    def make() -> Any:
        cls: Any = typing.NewType  # type checkers want to see the name
        made = cls(name, supertype)
        made.__module__ = module
        return made

    return SENTINELS.find(key, make)


def make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Pickles name this function to make a function with a cache, which is empty."""
    return functools.lru_cache(**parameters)(function)


def make_partial_method(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Pickles name this function to make a partial method."""
    return functools.partialmethod(func, *args, **keywords)


def make_cached_property(func: Any, name: str | None, doc: str | None) -> Any:
    """Pickles name this function to make a property."""
    made: Any = functools.cached_property(func)
    made.attrname, made.__doc__ = name, doc
    return made


def make_descriptor(cls: Any, base: Any, args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    """Pickles name this function to make a property, class method or static method."""
    made: Any = base.__new__(cls)
    base.__init__(made, *args)
    made.__dict__.update(attributes)
    return made
