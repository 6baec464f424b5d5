"""Writes units of code: cloudpickle, changed where classes and globals have to be shared."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from wool._serialization.classes import CLASSES, find_in_module, find_module, guard_class
from wool._serialization.codeobjects import reduce_code
from wool._serialization.exceptions import reduce_exception
from wool._serialization.library import reduce_library
from wool._serialization.namespaces import Scope, Versions, share_globals
from wool._serialization.references import must_stay
from wool._serialization.sentinels import is_sentinel, reduce_sentinel
from wool._serialization.sources import mentioned
from wool._serialization.travelling import Modules
from wool._serialization.variables import reduce_variable
from wool.exceptions import SerializationError


@dataclass(frozen=True, slots=True)
class Written:
    """A function or class as bytes.

    Attributes:
        data: a pickle of the names of modules that it may import while it runs, and one of itself.
        provides: keys of the classes it defines.
        functions: the functions in it that travel by value.
    """

    data: bytes
    provides: tuple[bytes, ...]
    functions: tuple[FunctionType, ...]


def write(value: Any, modules: Modules, versions: Versions) -> Written:
    """Pickles a function or class by value.

    Raises:
        Exception: whatever pickling raises.
    """
    import cloudpickle

    buffer = io.BytesIO()
    pickler: Any = _pickler_class(cloudpickle.Pickler)(buffer, modules, versions)
    pickler.dump(value)
    head = pickle.dumps(modules.named(_imports(pickler.functions)))
    return Written(head + buffer.getvalue(), tuple(pickler.provides), tuple(pickler.functions))


def reduce_function(function: FunctionType, modules: Modules) -> Any:
    """Reduces a function of a module that travels, or a routine that cannot be imported.

    Returns:
        What a pickler's `reducer_override` does; `NotImplemented` for any other function.
    """
    reference = modules.reference(function)
    if reference is not None:
        return find_in_module, reference
    routine = function.__dict__.get("__wool__")
    # `functools.wraps` copies the attribute to what others make of a routine.
    if routine is None or routine.wrapper is not function or modules.importable(function):
        return NotImplemented
    return routine.reduce()


def _imports(functions: Iterable[FunctionType]) -> Iterator[str]:
    """Yields the names of modules that functions may import while they run."""
    for function in functions:
        scope = function.__globals__
        package = scope.get("__package__") or ""
        yield from mentioned(function.__code__, package)


def _pickler_class(base: Any) -> Any:
    native = base.reducer_override

    class CodePickler(base):
        def __init__(self, file: io.BytesIO, modules: Modules, versions: Versions) -> None:
            base.__init__(self, file, 5)
            self.provides: list[bytes] = []
            self.functions: list[FunctionType] = []
            self.scopes: dict[int, Scope] = {}
            self.modules = modules
            self.versions = versions

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type):
                return self._reduce_class(obj)
            if isinstance(obj, FunctionType):
                reduced = reduce_function(obj, self.modules)
                return self._reduce_function(obj) if reduced is NotImplemented else reduced
            if isinstance(obj, ModuleType) and (name := self.modules.name(vars(obj))):
                return find_module, (name,)
            if isinstance(obj, (CodeType, BaseException)):
                return reduce_code(obj) if isinstance(obj, CodeType) else reduce_exception(obj)
            if type(obj) is ContextVar:
                return reduce_variable(cast("ContextVar[Any]", obj), self.modules)
            self.modules.mention(obj)
            sentinel = type(obj) not in self.dispatch_table and is_sentinel(obj)
            reduced = (reduce_sentinel if sentinel else reduce_library)(obj, self.modules)
            return native(self, obj) if reduced is NotImplemented else reduced

        def _reduce_class(self, cls: type) -> Any:
            reference = self.modules.reference(cls)
            if reference is not None:
                return find_in_module, reference
            reduced = native(self, cls)
            if self.modules.importable(cls) or reduced is NotImplemented or len(reduced) != 6:
                return reduced  # by name, or of a built-in type that has none
            key = CLASSES.key(cls)
            self.provides.append(key)
            return guard_class(cls, key, reduced)

        def _reduce_function(self, function: FunctionType) -> Any:
            reduced = native(self, function)
            if reduced is NotImplemented or len(reduced) != 6:
                return reduced  # by name
            _check_variables(function)
            self.functions.append(function)
            scope = self.scopes.get(id(function.__globals__))
            if scope is None:
                scope = _scope(function, reduced[1][1], self.modules)
                self.scopes[id(function.__globals__)] = scope
            return share_globals(function, reduced, scope, self.versions)

    return CodePickler


def _check_variables(function: FunctionType) -> None:
    """Raises SerializationError if a function closes over something that has to stay here."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is empty
            value = cell.cell_contents
            if must_stay(value):
                kind = type(value).__qualname__
                raise SerializationError(f"its {name!r} ({kind}) stays where it is")


def _scope(function: FunctionType, base: dict[str, Any], modules: Modules) -> Scope:
    """Returns what stands for the globals of a function."""
    name = modules.name(function.__globals__)
    if name is None:
        return Scope(function, base)
    return Scope(function, base, name, modules.defined(name))
