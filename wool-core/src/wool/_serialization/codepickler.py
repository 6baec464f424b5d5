"""Writes units of code: cloudpickle, changed where classes and globals have to be shared."""

from __future__ import annotations

import io
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from wool._serialization.classes import CLASSES, guard_class
from wool._serialization.codeobjects import reduce_code
from wool._serialization.exceptions import reduce_exception
from wool._serialization.modules import importable
from wool._serialization.namespaces import Scope, Versions, share_globals


@dataclass(frozen=True, slots=True)
class Written:
    """A function or class as bytes.

    Attributes:
        provides: keys of the classes it defines.
        functions: the functions in it that travel by value.
    """

    data: bytes
    provides: tuple[bytes, ...]
    functions: tuple[FunctionType, ...]


def write(value: Any, versions: Versions) -> Written:
    """Pickles a function or class by value.

    Raises:
        Exception: whatever pickling raises.
    """
    import cloudpickle

    buffer = io.BytesIO()
    pickler: Any = _pickler_class(cloudpickle.Pickler)(buffer, versions)
    pickler.dump(value)
    return Written(buffer.getvalue(), tuple(pickler.provides), tuple(pickler.functions))


def reduce_routine(function: FunctionType) -> Any:
    """Reduces a routine that cannot be imported; `NotImplemented` for any other function."""
    routine = function.__dict__.get("__wool__")
    if routine is None or importable(function):
        return NotImplemented
    return routine.reduce()


def _pickler_class(base: Any) -> Any:
    native = base.reducer_override

    class CodePickler(base):
        def __init__(self, file: io.BytesIO, versions: Versions) -> None:
            base.__init__(self, file, 5)
            self.provides: list[bytes] = []
            self.functions: list[FunctionType] = []
            self.scopes: dict[int, Scope] = {}
            self.versions = versions

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and not importable(obj):
                return self._reduce_class(obj, native(self, obj))
            if isinstance(obj, FunctionType):
                reduced = reduce_routine(obj)
                if reduced is NotImplemented:
                    reduced = self._reduce_function(obj, native(self, obj))
                return reduced
            if isinstance(obj, CodeType):
                return reduce_code(obj)
            if isinstance(obj, BaseException):
                return reduce_exception(obj)
            return native(self, obj)

        def _reduce_class(self, cls: type, reduced: Any) -> Any:
            if reduced is NotImplemented or len(reduced) != 6:
                return reduced  # of a built-in type without a name
            key = CLASSES.key(cls)
            self.provides.append(key)
            return guard_class(cls, key, reduced)

        def _reduce_function(self, function: FunctionType, reduced: Any) -> Any:
            if reduced is NotImplemented or len(reduced) != 6:
                return reduced  # by name
            self.functions.append(function)
            scope = self.scopes.get(id(function.__globals__))
            if scope is None:
                scope = self.scopes[id(function.__globals__)] = Scope(function, reduced[1][1])
            return share_globals(function, reduced, scope, self.versions)

    return CodePickler
