"""How each kind of object travels, and why: the table that all pickling looks at.

Functions, classes and modules
- that workers import: by name. They are there.
- of a module of the user's project, for workers that lack it: by name, and the module is sent. They
  exist once there, under the names they have here.
- all other functions: by value. In code they share the globals of their module, as each is to see
  what another one sets; in a value they have a copy of those, as all is a copy in a value.
- routines of that kind: as a routine that is made of such a function.
- all other classes: in a value by a key, in code by their definition under that key. They stay one
  class wherever they come.
- all other modules: by all that is in them. Nobody can import them.

Other objects that code is full of
- code objects: whole, the name of their file included. Tracebacks show it.
- members of an `Enum`: by name. They are compared by identity.
- sentinels and type parameters: in code, by a key, for the same reason; a value is a copy.
- parts of the standard library that hold a lock or a cache (`library`): by what they are made of.

Values
- calls, live objects, exceptions, context variables: see `_values.codec`, which adds them.
- all else: as it says itself, with its module sent along, which it may name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import msgspec

from wool._code.classes import reduce_member
from wool._code.functions import reduce_cell, reduce_code, reduce_function
from wool._code.library import LIBRARY
from wool._code.loading import find_in_module, find_module
from wool._code.modules import Modules
from wool._code.names import find_function, find_name, findable, is_built_in
from wool._code.namespaces import Scope, copied_scope

_type: Callable[[Any], Any] = type


class Reducer(msgspec.Struct):
    """Reduces the objects of one pickle, for use in a pickler's `reducer_override`.

    Args:
        modules: those that travel.
    """

    modules: Modules
    scopes: dict[int, Scope] = {}  # Struct makes a new one for each
    cells: dict[int, CellType] = {}

    of_type: ClassVar[Mapping[type, Callable[[Any, Any], Any]]]
    """By the types that no class derives from."""

    of_base: ClassVar[Mapping[type, Callable[[Any, Any], Any]]]
    """By base classes: the first that fits. An object that it leaves as it is goes to `other`."""

    def __call__(self, obj: Any) -> Any:
        reduce = self.of_type.get(_type(obj))
        if reduce is not None:
            return reduce(self, obj)
        for base, reduce in self.of_base.items():
            if isinstance(obj, base):
                reduced = reduce(self, obj)
                if reduced is not NotImplemented or base is type:
                    return reduced
        return self.other(obj)

    def function(self, function: FunctionType) -> Any:
        """Reduces a function by its name, or as a routine, or by value."""
        reference = self.modules.qualified_name(function)
        if reference is not None:
            return find_in_module, reference
        routine = function.__dict__.get("__wool__")
        if self.modules.importable(function):
            target = f"{function.__module__}:{function.__qualname__}"
            named = find_name(target)
            return NotImplemented if named is function else (find_function, (target,))
        # `functools.wraps` copies the attribute to what others make of a routine.
        if routine is not None and routine.wrapper is function:
            return routine.reduce()
        return self.function_by_value(function)

    def function_by_value(self, function: FunctionType) -> Any:
        """Reduces a function by value."""
        scope = self.scopes.get(id(function.__globals__))
        if scope is None:
            scope = self.scopes[id(function.__globals__)] = self.scope(function)
        return reduce_function(function, scope, self.cells)

    def scope(self, function: FunctionType) -> Scope:
        """Returns what stands for the globals of a function."""
        return copied_scope(function.__globals__)

    def cls(self, cls: type) -> Any:
        """Reduces a class by its name, or by value."""
        if is_built_in(cls):
            return NotImplemented
        reference = self.modules.qualified_name(cls)
        if reference is not None:
            return find_in_module, reference
        return NotImplemented if self.modules.importable(cls) else self.class_by_value(cls)

    def class_by_value(self, cls: type) -> Any:
        """Reduces a class by value."""
        raise NotImplementedError

    def module(self, module: ModuleType) -> Any:
        """Reduces a module by its name, or by value."""
        name = self.modules.name(vars(module))
        if name is not None:
            return find_module, (name,)
        if findable(module.__name__):
            return import_module, (module.__name__,)
        held = {name: value for name, value in vars(module).items() if name != "__builtins__"}
        return ModuleType, (module.__name__,), held

    def other(self, obj: Any) -> Any:
        """Reduces what has no kind of its own in the table."""
        self.modules.mention(obj)
        reduce = LIBRARY.get(_type(obj))
        return NotImplemented if reduce is None else reduce(obj, self.modules)


Reducer.of_type = {
    CellType: lambda _, cell: reduce_cell(cell),
    CodeType: lambda _, code: reduce_code(code),
    FunctionType: Reducer.function,
}
Reducer.of_base = {
    type: Reducer.cls,
    ModuleType: Reducer.module,
    Enum: lambda _, member: reduce_member(member),
}
