"""Whose code something is: the user's own, or that of a library."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import cache
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any, cast

from wool._serialization.rules import is_installed

DEPTH = 3
"""Steps from an object to a module that holds it."""

MOST_HOLDERS = 64
"""Holders looked at in each step."""


@cache
def is_library(name: str) -> bool:
    """Whether a module belongs to Python or to an installed distribution."""
    if name in ("__main__", "__mp_main__"):
        return False
    path = None
    module: object = sys.modules.get(name)
    if issubclass(type(module), ModuleType):  # a lazy one is not to be asked
        path = object.__getattribute__(module, "__dict__").get("__file__")
    if not isinstance(path, str):
        # Built into the interpreter, or made at run time, as by a notebook.
        return name.partition(".")[0] in sys.stdlib_module_names
    return is_installed(path)


def owner(thing: object, value: object) -> str | None:
    """Returns the module of the user's own that holds an object; None: a library does, or nobody.

    Looks at whoever calls, then at what the garbage collector knows, which takes a while.

    Args:
        value: what is kept in it. Those of `decimal`, which nothing in Python holds, and of
            OpenTelemetry, which is translated, tell at once.
    """
    if type(value).__module__.partition(".")[0] in ("decimal", "opentelemetry"):
        return None
    for frame in _callers():
        if any(held is thing for held in frame.f_locals.values()):
            return _own(frame.f_globals.get("__name__"))
    return _holder(thing)


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("wool."):
            yield frame
        frame = frame.f_back


def _holder(thing: object) -> str | None:
    wave: list[Any] = [thing]
    for _ in range(DEPTH):
        holders = [h for h in gc.get_referrers(*wave) if h is not wave][:MOST_HOLDERS]
        for holder in holders:
            module = _module_of(holder)
            if module is not None and not module.startswith("wool."):
                return _own(module)
        wave = holders
        if not wave:
            break
    return None


def _module_of(holder: Any) -> str | None:
    """Returns the module that a holder of something stands for, if it says so."""
    kind = cast("type[Any]", type(holder))
    if kind is dict:
        return holder.get("__name__") if "__builtins__" in holder else None  # globals of a module
    if kind in _RUNNING:
        frame = getattr(holder, _RUNNING[kind])
        return None if frame is None else frame.f_globals.get("__name__")
    if kind is FrameType:
        return holder.f_globals.get("__name__")
    if kind is ModuleType:
        return holder.__name__
    if kind is FunctionType or issubclass(kind, type):
        return holder.__module__
    module = kind.__module__
    return None if module in ("builtins", "_contextvars", "contextvars", "types") else module


_RUNNING = {
    CoroutineType: "cr_frame",
    GeneratorType: "gi_frame",
    AsyncGeneratorType: "ag_frame",
}


def _own(module: str | None) -> str | None:
    return None if module is None or is_library(module) else module
