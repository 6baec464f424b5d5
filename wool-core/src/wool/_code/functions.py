"""Functions that travel by value: what they consist of, and how they are made of that again.

A function is made empty first: what it closes over, its globals and its defaults may lead back to
it. Two functions that close over one variable share it there as they do here.
"""

from __future__ import annotations

import contextlib
import dis
import marshal
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from wool._code.namespaces import Globals, Scope, set_globals

CODE_KNOWN = 4096
"""Of so many functions it is remembered which globals they use: that takes a while to find out."""

_GLOBAL = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
"""Instructions that name globals; the last two do so in the body of a class."""

_PARTS = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")
_ALL_PARTS = (*_PARTS, "__type_params__") if sys.version_info >= (3, 12) else _PARTS


def reduce_function(
    function: FunctionType, scope: Scope, cells: dict[int, CellType]
) -> tuple[Any, ...]:
    """Reduces a function for use in a pickler's `reducer_override`.

    Args:
        scope: stands for its globals.
        cells: the empty ones that stand for variables until all of a value has been made.
    """
    code, closure = function.__code__, function.__closure__
    contents = dict(_contents(closure or ()))
    if closure:
        closure = tuple(cells.setdefault(id(cell), CellType()) for cell in closure)
    used = {n: function.__globals__[n] for n in globals_of(code) if n in function.__globals__}
    parts = {name: getattr(function, name) for name in _ALL_PARTS}
    parts["__annotations__"] = annotations_of(function)
    submodules = list(_submodules(code, [*used.values(), *contents.values()]))
    sent = {name: value for name, value in used.items() if name not in scope.defined}
    state = dict(vars(function)), parts, contents, sent, scope.versions(sent), submodules
    return make_function, (code, scope, closure), state, None, None, finish_function


def make_function(code: CodeType, scope: Globals, closure: Any) -> FunctionType:
    """Code names this function to make a function. It leaves the globals as they are."""
    return FunctionType(code, scope, None, None, closure)


def finish_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """Code names this function to complete a function."""
    attributes, parts, contents, sent, versions, _ = state  # the last have been imported
    function.__dict__.update(attributes)
    for name, value in parts.items():
        setattr(function, name, value)
    cells: Any = function.__closure__
    for index, content in contents.items():
        cells[index].cell_contents = content
    set_globals(function.__globals__, sent, versions)


def variables_of(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """Yields what is pickled with a function: what it is, its name and its value."""
    code = function.__code__
    for index, content in _contents(function.__closure__ or ()):
        yield "variable", code.co_freevars[index], content
    for name in globals_of(code):
        if name in function.__globals__:
            yield "global", name, function.__globals__[name]
    named = code.co_varnames[: code.co_argcount]
    for name, value in zip(reversed(named), reversed(function.__defaults__ or ()), strict=False):
        yield "default of", name, value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield "default of", name, value


@lru_cache(CODE_KNOWN)
def globals_of(code: CodeType) -> tuple[str, ...]:
    """Returns the names of the globals that code uses, that of functions inside it included."""
    used = [each.argval for each in dis.get_instructions(code) if each.opname in _GLOBAL]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            used += globals_of(constant)
    return tuple(dict.fromkeys(used))


def _contents(closure: Iterable[CellType]) -> Iterator[tuple[int, Any]]:
    """Yields the variables of a closure that are bound, by their places."""
    for index, cell in enumerate(closure):
        with contextlib.suppress(ValueError):
            yield index, cell.cell_contents


def _submodules(code: CodeType, values: Iterable[Any]) -> Iterator[ModuleType]:
    """Yields modules that code may use as attributes of packages, as in `xml.dom.Node`."""
    used = set(code.co_names)
    for package in values:
        if isinstance(package, ModuleType) and getattr(package, "__package__", None):
            prefix = f"{package.__name__}."
            for name, module in list(sys.modules.items()):
                if name.startswith(prefix) and used.issuperset(name[len(prefix) :].split(".")):
                    yield module


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    """Reduces a code object. It keeps the name of its file: tracebacks show it."""
    return marshal.loads, (marshal.dumps(code),)


def reduce_cell(cell: CellType) -> tuple[Any, ...]:
    """Reduces a variable that functions close over."""
    return CellType, tuple(content for _, content in _contents([cell]))


def annotations_of(item: type | FunctionType) -> dict[str, Any]:
    """Returns the annotations of a class or function.

    Since Python 3.14 they are evaluated when they are read. Names may be for type checkers alone;
    of what mentions them the text is returned.
    """
    if sys.version_info < (3, 14):
        return item.__annotations__
    from annotationlib import Format, ForwardRef, get_annotations

    try:
        return get_annotations(item)
    except Exception:
        found = get_annotations(item, format=Format.FORWARDREF)
    texts = get_annotations(item, format=Format.STRING)
    return {n: texts[n] if isinstance(value, ForwardRef) else value for n, value in found.items()}
