"""Which modules another process of this installation can import.

What such a module defines travels as a name; everything else travels by value.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any


def importable(obj: Any) -> bool:
    """Whether another process finds the same function or class by its module and name."""
    module = getattr(obj, "__module__", None)
    if module is None or not findable(module):
        return False
    found: Any = sys.modules.get(module)
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj or getattr(found, "__func__", None) is obj


@cache
def findable(name: str) -> bool:
    """Whether the import system finds a module of this name where this process has it from.

    `__main__`, a notebook, a module made at run time, or one that a test runner imported from a
    file outside of `sys.path` are not found.
    """
    if name == "builtins":
        return True
    module = sys.modules.get(name)
    if name in ("__main__", "__mp_main__") or module is None:
        return False
    parent, _, _ = name.rpartition(".")
    if parent and not findable(parent):
        found = False
    else:
        found = _spec_matches(name, module, sys.modules[parent].__path__ if parent else None)
    if not found:
        _travel_by_value(module)
    return found


def _spec_matches(name: str, module: ModuleType, path: Any) -> bool:
    mine = module.__spec__
    if mine is None:
        return False
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, AttributeError, OSError):
            continue
        if spec is not None:
            return spec.origin == mine.origin
    # Made by its own package while that was imported, as `os.path` is.
    return bool(path) or mine.origin is None


def _travel_by_value(module: ModuleType) -> None:
    import cloudpickle

    library: Any = cloudpickle
    try:
        library.register_pickle_by_value(module)
    except ValueError:  # it is in sys.modules under another name
        pass
