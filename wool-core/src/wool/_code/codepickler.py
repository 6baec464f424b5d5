"""Writes units of code: a function or class by value, with all that it takes along."""

from __future__ import annotations

import io
import pickle
from collections.abc import Container, Iterable, Iterator
from functools import cache
from types import FunctionType
from typing import Any

import msgspec

from wool._code.classes import reduce_class
from wool._code.functions import variables_of
from wool._code.identity import IDENTITIES
from wool._code.modules import Modules
from wool._code.names import is_built_in
from wool._code.namespaces import Scope, shared_scope
from wool._code.sentinels import is_sentinel, reduce_sentinel
from wool._code.sources import mentioned
from wool._code.treatments import Reducer
from wool._texts import kind_of
from wool.exceptions import SerializationError


class Values:
    """How values are treated that code has among its globals, defaults and closures."""

    def reduce(self, obj: Any, modules: Modules, /) -> Any:
        """Returns what a `reducer_override` does; `NotImplemented` for what is not treated."""
        return NotImplemented

    def must_stay(self, obj: Any, /) -> bool:
        """Whether an object would be of no use as a copy."""
        return False


class Written(msgspec.Struct, frozen=True):
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
    buffer = io.BytesIO()
    pickler = _pickler_class()(buffer, 5)
    unit = pickler.unit = _Unit(modules, values=values, dispatched=pickler.dispatch_table)
    pickler.dump(value)
    head = pickle.dumps(modules.named(_imports(unit.functions)))
    return Written(head + buffer.getvalue(), tuple(unit.provides), tuple(unit.functions))


def find_culprit(
    function: FunctionType,
    modules: Modules,
    values: Values,
    form: str = "its {}",
    seen: frozenset[FunctionType] = frozenset(),
) -> str | None:
    """Names the variable because of which a function cannot be pickled, as in "its global 'x' (X)".

    Returns None if it is something else.
    """
    seen |= {function}
    for what, name, value in variables_of(function):
        try:
            write(value, modules, values)
        except Exception:
            if isinstance(value, FunctionType):
                if value in seen:  # it fails for what is found elsewhere
                    continue
                form_there = f"the {{}} of {value.__qualname__}()"
                deeper = find_culprit(value, modules, values, form_there, seen)
                if deeper is not None:
                    return deeper
            return form.format(f"{what} {name!r} ({kind_of(value)})")
    return None


def _imports(functions: Iterable[FunctionType]) -> Iterator[str]:
    """Yields the names of modules that functions may import while they run."""
    for function in functions:
        scope = function.__globals__
        package = scope.get("__package__") or ""
        yield from mentioned(function.__code__, package)


class _Unit(Reducer, kw_only=True):
    """How what is in a unit is reduced, and what becomes known of the unit by that.

    Args:
        values: how values are treated.
        dispatched: the classes that cloudpickle has reducers for.

    Attributes:
        provides, functions: as of `Written`.
    """

    values: Values
    dispatched: Container[type]
    provides: list[bytes] = msgspec.field(default_factory=list[bytes])
    functions: list[FunctionType] = msgspec.field(default_factory=list[FunctionType])

    def class_by_value(self, cls: type) -> Any:
        key = IDENTITIES.key(cls)
        self.provides.append(key)
        return reduce_class(cls, key)

    def function_by_value(self, function: FunctionType) -> Any:
        for what, name, value in variables_of(function):
            if what == "variable" and self.values.must_stay(value):
                kind = type(value).__qualname__
                raise SerializationError(f"its {name!r} ({kind}) stays where it is")
        self.functions.append(function)
        return super().function_by_value(function)

    def scope(self, function: FunctionType) -> Scope:
        return shared_scope(function.__globals__, self.modules)

    def other(self, obj: Any) -> Any:
        reduced = self.values.reduce(obj, self.modules)
        if reduced is NotImplemented and type(obj) not in self.dispatched and is_sentinel(obj):
            self.modules.mention(obj)
            return reduce_sentinel(obj, self.modules)
        return super().other(obj) if reduced is NotImplemented else reduced


@cache
def _pickler_class() -> Any:
    """Makes the pickler's class; cloudpickle's own reducers answer what is left to them."""
    import cloudpickle

    base: Any = cloudpickle.Pickler

    class CodePickler(base):
        unit: _Unit

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.unit(obj)
            if reduced is NotImplemented and isinstance(obj, type) and is_built_in(obj):
                return base.reducer_override(self, obj)  # some have no name to find them by
            return reduced

    return CodePickler
