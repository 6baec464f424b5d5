"""Parts of functions that cloudpickle needs help with: code objects and annotations.

Code objects travel whole, the name of their file included: tracebacks show it. cloudpickle leaves
that out since 3.1.3, for the sake of pickles that do not depend on it.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType
from typing import Any


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    """Reduces a code object, for use in a pickler's `reducer_override`."""
    return CodeType, (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_nlocals,
        code.co_stacksize,
        code.co_flags,
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_filename,
        code.co_name,
        code.co_qualname,
        code.co_firstlineno,
        code.co_linetable,
        code.co_exceptiontable,
        code.co_freevars,
        code.co_cellvars,
    )


def annotations_of(item: type | FunctionType) -> dict[str, Any]:
    """Returns the annotations of a class or function that cloudpickle does not know about.

    Since Python 3.14 they are evaluated when they are read, and are not in the body of a class.
    Names may be for type checkers alone; of what mentions them the text is returned.
    """
    if sys.version_info < (3, 14):
        return {}
    from annotationlib import Format, ForwardRef, get_annotations

    try:
        return get_annotations(item)
    except Exception:
        found = get_annotations(item, format=Format.FORWARDREF)
    texts = get_annotations(item, format=Format.STRING)
    return {n: texts[n] if isinstance(value, ForwardRef) else value for n, value in found.items()}


def evaluable(function: FunctionType) -> FunctionType:
    """Returns a function whose annotations can be read: a copy of one for which that fails."""
    try:
        function.__annotations__  # noqa: B018 - this is what may fail
        return function
    except Exception:
        scope, closure = function.__globals__, function.__closure__
        defaults = function.__defaults__
        copy = FunctionType(function.__code__, scope, function.__name__, defaults, closure)
        copy.__dict__.update(function.__dict__)
        for name in ("__doc__", "__kwdefaults__", "__module__", "__qualname__", "__type_params__"):
            setattr(copy, name, getattr(function, name))
        copy.__annotations__ = annotations_of(function)
        return copy


def find_readable(function: FunctionType) -> FunctionType:
    """Payloads name this function to refer to a function by the copy that could be sent."""
    return function
