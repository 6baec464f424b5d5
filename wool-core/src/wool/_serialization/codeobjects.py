"""Code objects travel whole, the name of their file included: tracebacks show it.

cloudpickle leaves that out since 3.1.3, for the sake of pickles that do not depend on it.
"""

from __future__ import annotations

from types import CodeType
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
