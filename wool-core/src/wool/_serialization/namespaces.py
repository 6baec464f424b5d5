"""Globals of functions that travel by value.

All functions of one module of one process share one namespace on a worker, as they do at home: what
one sets there, another sees, whichever call it was that brought them. A global that was sent is set
only once, so that it does not undo what happened on the worker since; it is set anew when its
owner has bound it to another object, which the version that travels with it tells.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from wool._serialization.classes import CLASSES, find_globals, find_namespace

_MARK = "__wool_namespace__"

Globals = dict[str, Any]


class Namespace:
    """What is known of a namespace that came from elsewhere.

    Attributes:
        owner: the process it is a copy of.
        module: the name of the module there.
        versions: of the globals it has.
    """

    def __init__(self, owner: bytes, module: str) -> None:
        self.owner = owner
        self.module = module
        self.versions: dict[str, int] = {}


class Namespaces:
    """The namespaces of one receiver.

    Args:
        builtins: what functions find under built-in names.
    """

    def __init__(self, builtins: Globals) -> None:
        self._builtins = builtins
        self._globals: dict[tuple[bytes, str], Globals] = {}

    def find(self, owner: bytes, module: str, base: Globals) -> Globals:
        """Returns the globals for functions of a module of another process."""
        if owner == CLASSES.process and module in sys.modules:
            return sys.modules[module].__dict__  # they have come home
        scope = self._globals.get((owner, module))
        if scope is None:
            scope = self._globals[owner, module] = dict(base)
            scope["__builtins__"] = self._builtins
            scope[_MARK] = Namespace(owner, module)
        return scope


class Versions:
    """Numbers the bindings of globals as they are sent; a new object gets a new number."""

    def __init__(self) -> None:
        self._bindings: dict[tuple[int, str], tuple[Any, int]] = {}
        self._lock = threading.Lock()

    def of(self, scope: Globals, name: str, value: Any) -> int:
        """Returns the version of what a global is bound to now."""
        came = scope.get(_MARK)
        if isinstance(came, Namespace):
            return came.versions.get(name, 0)
        with self._lock:
            known, version = self._bindings.get((id(scope), name), (None, 0))
            if known is not value or not version:
                version += 1
                self._bindings[id(scope), name] = value, version
            return version


class Scope:
    """Stands for the globals of a function while it is pickled.

    Args:
        module: the module whose globals they are, if that travels as a whole.
        defined: the names that a worker then has in them anyway.

    Attributes:
        defined: names of globals that need not be sent.
    """

    def __init__(
        self,
        function: FunctionType,
        base: Globals,
        module: str | None = None,
        defined: frozenset[str] = frozenset(),
    ) -> None:
        self.defined = defined
        self._whole = module
        scope = function.__globals__
        came = scope.get(_MARK)
        self._owner = came.owner if isinstance(came, Namespace) else CLASSES.process
        self._name = came.module if isinstance(came, Namespace) else _name(scope)
        self._base = base

    def __reduce__(self) -> tuple[Any, ...]:
        if self._whole is not None:
            return find_globals, (self._whole,)
        return find_namespace, (self._owner, self._name, self._base)


def _name(scope: Globals) -> str:
    """Names the globals of a function: those of a module, or some that have no other name."""
    name = str(scope.get("__name__"))
    module = sys.modules.get(name)
    return name if module is not None and module.__dict__ is scope else f"{name} {id(scope)}"


def share_globals(
    function: FunctionType, native: tuple[Any, ...], scope: Scope, versions: Versions
) -> tuple[Any, ...]:
    """Changes cloudpickle's reduction of a function so that its globals are shared."""
    _, (code, _, *rest), (attributes, slots), _, _, set_state = native
    held: Globals = slots.pop("__globals__")
    names = {name: value for name, value in held.items() if name not in scope.defined}
    numbered = {n: versions.of(function.__globals__, n, v) for n, v in names.items()}
    slots["__globals__"] = {}
    if parameters := getattr(function, "__type_params__", ()):  # cloudpickle leaves them out
        slots["__type_params__"] = parameters
    state: tuple[Any, ...] = set_state, (attributes, slots), names, numbered
    return make_function, (code, scope, *rest), state, None, None, finish_function


def make_function(
    code: CodeType, scope: Globals, name: str, defaults: Any, closure: Any
) -> FunctionType:
    """Units name this function to make a function. It leaves the globals as they are."""
    return FunctionType(code, scope, name, defaults, closure)


def finish_function(
    function: FunctionType,
    state: tuple[Callable[..., Any], tuple[Any, Any], Globals, dict[str, int]],
) -> None:
    """Units name this function to complete a function."""
    set_state, body, names, numbered = state
    scope = function.__globals__
    named = scope["__builtins__"]
    set_state(function, body)
    scope["__builtins__"] = named  # it has put its own there
    came = scope.get(_MARK)
    if not isinstance(came, Namespace):
        # It is at home, or where its module is: nothing there changes.
        for name, value in names.items():
            scope.setdefault(name, value)
        return
    for name, value in names.items():
        if name not in scope or numbered[name] > came.versions.get(name, 0):
            scope[name] = value
            came.versions[name] = numbered[name]
