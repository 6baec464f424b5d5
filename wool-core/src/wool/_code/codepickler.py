"""Writes units of code: cloudpickle, changed where classes and globals have to be shared."""

from __future__ import annotations

import contextlib
import dis
import io
import pickle
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

from wool._code.classes import (
    CLASSES,
    find_in_module,
    find_method,
    find_module,
    guard_class,
)
from wool._code.codeobjects import evaluable, reduce_code
from wool._code.enums import reduce_member
from wool._code.library import reduce_descriptor, reduce_library
from wool._code.modules import Modules
from wool._code.names import find_name, findable
from wool._code.namespaces import Scope, share_variables
from wool._code.sentinels import is_sentinel, reduce_sentinel
from wool._code.sources import mentioned
from wool._texts import kind_of
from wool.exceptions import SerializationError

Native = Callable[[Any], Any]
"""What cloudpickle itself makes of an object."""


class Values(Protocol):
    """How values are treated that code has among its globals, defaults and closures."""

    def reduce(self, obj: Any, modules: Modules, /) -> Any:
        """Returns what a `reducer_override` does; `NotImplemented` for what is not treated."""

    def must_stay(self, obj: Any, /) -> bool:
        """Whether an object would be of no use as a copy."""
        ...


class PlainValues:
    """No value needs a treatment of its own."""

    def reduce(self, obj: Any, modules: Modules, /) -> Any:
        return NotImplemented

    def must_stay(self, obj: Any, /) -> bool:
        return False


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


def write(value: Any, modules: Modules, values: Values) -> Written:
    """Pickles a function or class by value.

    Raises:
        Exception: whatever pickling raises.
    """
    import cloudpickle

    buffer = io.BytesIO()
    unit = _Unit(modules, values, cloudpickle.Pickler.dispatch_table)
    _pickler_class(cloudpickle.Pickler)(buffer, unit).dump(value)
    head = pickle.dumps(modules.named(_imports(unit.functions)))
    return Written(head + buffer.getvalue(), tuple(unit.provides), tuple(unit.functions))


def find_culprit(function: FunctionType, modules: Modules, values: Values) -> str | None:
    """Names the variable because of which a function cannot be pickled, as in "its global 'x' (X)".

    Returns None if it is something else.
    """
    return _find_culprit(function, modules, values, "its {}", {function})


def _find_culprit(
    function: FunctionType, modules: Modules, values: Values, form: str, seen: set[FunctionType]
) -> str | None:
    for what, name, value in _variables(function):
        try:
            write(value, modules, values)
        except Exception:
            if isinstance(value, FunctionType):
                if value in seen:  # it fails for what is found elsewhere
                    continue
                seen.add(value)
                form_there = f"the {{}} of {value.__qualname__}()"
                deeper = _find_culprit(value, modules, values, form_there, seen)
                if deeper is not None:
                    return deeper
            return form.format(f"{what} {name!r} ({kind_of(value)})")
    return None


def _variables(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """Yields what is pickled with a function: what it is, its name and its value."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is empty
            yield "variable", name, cell.cell_contents
    for name in _globals_of(code):
        if name in function.__globals__:
            yield "global", name, function.__globals__[name]
    named = code.co_varnames[: code.co_argcount]
    for name, value in zip(reversed(named), reversed(function.__defaults__ or ()), strict=False):
        yield "default of", name, value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield "default of", name, value


def _globals_of(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)


def reduce_function(function: FunctionType, modules: Modules) -> Any:
    """Reduces a function of a module that travels, or a routine that cannot be imported.

    Returns:
        What a pickler's `reducer_override` does; `NotImplemented` for any other function.
    """
    reference = modules.qualified_name(function)
    if reference is not None:
        return find_in_module, reference
    routine = function.__dict__.get("__wool__")
    # `functools.wraps` copies the attribute to what others make of a routine.
    if routine is None or routine.wrapper is not function:
        modules.importable(function)  # cloudpickle is told if not
        return NotImplemented
    if not modules.importable(function):
        return routine.reduce()
    named = find_name(f"{function.__module__}:{function.__qualname__}")
    return NotImplemented if named is function else (getattr, (named, "__func__"))


def _imports(functions: Iterable[FunctionType]) -> Iterator[str]:
    """Yields the names of modules that functions may import while they run."""
    for function in functions:
        scope = function.__globals__
        package = scope.get("__package__") or ""
        yield from mentioned(function.__code__, package)


class _Unit:
    """How what is in a unit is reduced, and what becomes known of the unit by that.

    Args:
        dispatched: the classes that cloudpickle has reducers for.

    Attributes:
        provides, functions: as of `Written`.
    """

    def __init__(self, modules: Modules, values: Values, dispatched: Container[type]) -> None:
        self.provides: list[bytes] = []
        self.functions: list[FunctionType] = []
        self._defined: set[int] = set()
        self._scopes: dict[int, Scope] = {}
        self._cells: dict[int, CellType] = {}
        self._modules = modules
        self._values = values
        self._dispatched = dispatched

    def reduce(self, obj: Any, native: Native) -> Any:
        """Reduces an object, for use in a pickler's `reducer_override`."""
        if isinstance(obj, type):
            return self._reduce_class(obj, native)
        if isinstance(obj, FunctionType):
            return self._reduce_function(obj, native)
        reduced = self._reduce_other(obj)
        return native(obj) if reduced is NotImplemented else reduced

    def _reduce_class(self, cls: type, native: Native) -> Any:
        reference = self._modules.qualified_name(cls)
        if reference is not None:
            return find_in_module, reference
        reduced = native(cls)
        if self._modules.importable(cls) or reduced is NotImplemented or len(reduced) != 6:
            return reduced  # by name, or of a built-in type that has none
        key = CLASSES.key(cls)
        self.provides.append(key)
        self._defined.add(id(cls))
        return guard_class(cls, key, reduced)

    def _reduce_function(self, function: FunctionType, native: Native) -> Any:
        reduced = reduce_function(function, self._modules)
        if reduced is not NotImplemented:
            return reduced
        by_name = self._modules.importable(function)
        reduced = native(function if by_name else evaluable(function))
        if reduced is NotImplemented or len(reduced) != 6:
            return reduced  # by name
        self._check_variables(function)
        self.functions.append(function)
        scope = self._scopes.get(id(function.__globals__))
        if scope is None:
            scope = _scope(function, reduced[1][1], self._modules)
            self._scopes[id(function.__globals__)] = scope
        return share_variables(function, reduced, scope, self._cells)

    def _check_variables(self, function: FunctionType) -> None:
        """Raises SerializationError if a function closes over what has to stay here."""
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            with contextlib.suppress(ValueError):  # it is empty
                value = cell.cell_contents
                if self._values.must_stay(value):
                    kind = type(value).__qualname__
                    raise SerializationError(f"its {name!r} ({kind}) stays where it is")

    def _reduce_other(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            findable(obj.__name__)  # cloudpickle is told if not
            name = self._modules.name(vars(obj))
            return NotImplemented if name is None else (find_module, (name,))
        if isinstance(obj, CodeType):
            return reduce_code(obj)
        reduced = self._values.reduce(obj, self._modules)
        if reduced is not NotImplemented:
            return reduced
        if isinstance(obj, Enum):
            reduced = reduce_member(obj)
            if reduced is not NotImplemented:
                return reduced
        self._modules.mention(obj)
        if type(obj) not in self._dispatched and is_sentinel(obj):
            return reduce_sentinel(obj, self._modules)
        reduced = reduce_descriptor(obj)
        if reduced is not NotImplemented:
            return reduced
        reduced = reduce_library(obj, self._modules)
        if type(obj) is MethodType and reduced is not NotImplemented:
            cls, name = reduced[1]
            if id(cls) in self._defined:
                return find_method, (cls, name, obj.__func__)
        return reduced


def _pickler_class(base: Any) -> Any:
    native = base.reducer_override

    class CodePickler(base):
        def __init__(self, file: io.BytesIO, unit: _Unit) -> None:
            base.__init__(self, file, 5)
            self.unit = unit

        def reducer_override(self, obj: Any) -> Any:
            return self.unit.reduce(obj, partial(native, self))

    return CodePickler


def _scope(function: FunctionType, base: dict[str, Any], modules: Modules) -> Scope:
    """Returns what stands for the globals of a function."""
    name = modules.name(function.__globals__)
    if name is None:
        return Scope(function, base)
    return Scope(function, base, name, modules.defined(name))
