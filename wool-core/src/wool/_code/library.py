"""Objects in code that pickle does not know: methods of classes, and parts of the standard
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

Reduce = Callable[[Any, Modules], Any]
"""Returns what a pickler's `reducer_override` does."""

_PARAMETERS = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
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


def _reduce_mark(obj: object, modules: Modules) -> Any:
    """Reduces what `inspect.markcoroutinefunction` marks functions with, which is compared by
    identity.
    """
    name = next((name for name, value in vars(inspect).items() if value is obj), None)
    return NotImplemented if name is None else (find_name, (f"inspect:{name}",))


def reduce_method(method: MethodType, modules: Modules) -> Any:
    """Reduces a method of a class by its name: its function alone has none."""
    owner: Any = method.__self__
    name = method.__name__
    if not isinstance(owner, type) or getattr(owner, name, None) != method:
        return NotImplemented
    return getattr, (owner, name)


def _reduce_cached(function: Any, modules: Modules) -> Any:
    """Reduces a function with a cache, unless it can be found and so names itself."""
    if modules.importable(function) or modules.qualified_name(function) is not None:
        return NotImplemented
    return make_cached, (function.__wrapped__, function.cache_parameters())


def _reduce_manager(manager: Any, modules: Modules) -> Any:
    """Reduces a context manager that decorates a function, and is made anew for its calls."""
    begun = inspect.getgeneratorstate(manager.gen) != inspect.GEN_CREATED
    return NotImplemented if begun else (_MANAGER, (manager.func, manager.args, manager.kwds))


def _reduce_forward(reference: Any, modules: Modules) -> Any:
    """Reduces a forward reference, which has the globals around it since Python 3.14."""
    parts = _text(reference), reference.__forward_module__, reference.__forward_is_class__
    return make_forward, parts


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


def _reduce_declared(obj: Any, modules: Modules) -> Any:
    """Reduces what annotations are made of, and names itself as well."""
    module = sys.modules.get(obj.__module__)
    if getattr(module, obj.__name__, None) is obj and (
        findable(obj.__module__) or modules.name(vars(module)) is not None
    ):
        return NotImplemented
    cls, key = _type(obj), SENTINELS.key(obj)
    if cls in _PARAMETERS:
        return make_parameter, (key, cls, obj.__name__, *_declared(obj))
    if cls is typing.NewType:
        return make_new_type, (key, obj.__name__, obj.__module__, obj.__supertype__)
    value = _evaluated(obj, "__value__", typing.ForwardRef(obj.__name__))
    return make_alias, (key, obj.__name__, value, obj.__type_params__)


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


def _made_of(*names: str, make: Callable[..., Any] | None = None) -> Reduce:
    """Returns what reduces objects to the attributes that they are made of again."""
    return lambda obj, _: (make or _type(obj), tuple(getattr(obj, name) for name in names))


LIBRARY: dict[Any, Reduce] = {
    # Compared by identity:
    object: _reduce_mark,
    **dict.fromkeys((*_PARAMETERS, typing.NewType, _ALIAS), _reduce_declared),
    # What is behind them stays here, or is not theirs:
    io.TextIOWrapper: _reduce_file,
    MethodType: reduce_method,
    # They have a lock, a cache or weak references; what they were made of travels:
    functools.cached_property: _made_of("func", "attrname", "__doc__", make=make_cached_property),
    functools.partialmethod: _made_of("func", "args", "keywords", make=make_partial_method),
    struct.Struct: _made_of("format"),
    typing.ForwardRef: _reduce_forward,
    typing.ParamSpecArgs: _made_of("__origin__"),
    typing.ParamSpecKwargs: _made_of("__origin__"),
    weakref.WeakKeyDictionary: lambda obj, _: (weakref.WeakKeyDictionary, (dict(obj),)),
    weakref.WeakSet: lambda obj, _: (weakref.WeakSet, (list(obj),)),
    weakref.WeakValueDictionary: lambda obj, _: (weakref.WeakValueDictionary, (dict(obj),)),
    _CACHED: _reduce_cached,
    _MANAGER: _reduce_manager,
}
"""By the types themselves: what derives from them may be something else."""
