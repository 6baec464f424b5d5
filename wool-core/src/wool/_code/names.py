"""Which modules another process of this installation can import.

Definitions of such a module travel as names; everything else travels by value.
"""

from __future__ import annotations

import builtins
import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from wool._code.rules import ask_finders


def find_object(module: ModuleType, qualname: str) -> Any:
    """Returns what has a qualified name in a module.

    Raises:
        AttributeError: there is nothing of this name.
    """
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def find_name(target: str) -> Any:
    """Imports what `module:qualified.name` names.

    Raises:
        Exception: whatever importing the module raises.
    """
    module, _, name = target.partition(":")
    return find_object(import_module(module), name)


def find_function(target: str) -> Any:
    """Pickles name this function to refer to one that has a method or a descriptor around it."""
    found = find_name(target)
    return getattr(found, "__func__", found)


def missing_remedy(name: str) -> str:
    """Says what to do about a module that a worker lacks."""
    top = name.partition(".")[0]
    return f"Install it there, or have it sent along with WorkerPool(ship=[{top!r}])"


def importable(obj: Any) -> bool:
    """Whether another process finds the same function or class by its module and name."""
    module = getattr(obj, "__module__", None)
    if module is None or not findable(module):
        return False
    return is_found(obj, sys.modules.get(module))


def is_built_in(cls: type) -> bool:
    """Whether a class is one of Python's own. A class defined in bare globals says so as well."""
    if cls.__module__ != "builtins":
        return False
    is_static = not cls.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE
    return is_static or getattr(builtins, cls.__name__, None) is cls


def is_found(obj: Any, module: ModuleType | None) -> bool:
    """Whether a function or class is what has its qualified name in a module."""
    found: Any = module
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj or getattr(found, "__func__", None) is obj


def findable(name: str) -> bool:
    """Whether the import system finds a module of this name where this process has it from."""
    return sys.modules.get(name) is not None and _findable(name)  # there may be no module yet


@cache
def _findable(name: str) -> bool:
    """Whether the import system finds a module that has been imported.

    `__main__`, a notebook, a module made at run time, or one that a test runner imported from a
    file outside of `sys.path` are not found.
    """
    if name == "builtins":
        return True
    if name in ("__main__", "__mp_main__"):
        return False
    module = sys.modules[name]
    known_as = getattr(getattr(module, "__spec__", None), "name", name)
    if known_as != name and sys.modules.get(known_as) is module:
        return _findable(known_as)  # as `collections.abc` is another name of `_collections_abc`
    parent, _, _ = name.rpartition(".")
    if parent and (sys.modules.get(parent) is None or not _findable(parent)):
        found = False
    else:
        # A parent that is no package, as `os` is of `os.path`, has no path.
        path = getattr(sys.modules[parent], "__path__", []) if parent else None
        found = _spec_matches(name, module, path)
    return found


def _spec_matches(name: str, module: ModuleType, path: Any) -> bool:
    # Some libraries put an object of their own in place of a module, which has no spec.
    mine = getattr(module, "__spec__", None)
    origin = getattr(module, "__file__", None) if mine is None else mine.origin
    spec = ask_finders(name, path)
    # Made by its own package while that was imported, as `os.path` is. Nobody else can make a
    # package that no finder finds, such as those a test runner makes up for a file's folders.
    return path is not None if spec is None else spec.origin == origin
