"""Context variables have names: those of the modules and classes they are bound to.

A variable is the same one in two processes if it is bound to the same name. One that other code
than an installed module defines, such as `__main__`, belongs to the process that defined it; a
worker makes its own copy of it for each such process. A name is found once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import cache
from importlib import import_module
from itertools import count
from types import ModuleType
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from wool._code.identity import IDENTITIES
from wool._code.loading import find_in_module
from wool._code.modules import Modules
from wool._code.names import findable
from wool._code.rules import OUR_OWN, find_spec, is_own

Variable = ContextVar[Any]
Place = tuple[str, str]
"""Where a variable is bound: a module, and a qualified name in it."""

MOST_NAMES = 16
"""A variable that is imported in many places is sent with so many of its names."""

MOST_NAMELESS = 4096
"""So many variables without a name are remembered as such."""


class Identity(Struct, frozen=True):
    """The identity of a variable, the same elsewhere.

    Attributes:
        names: where it is bound, `module:qualified.name`; any of them will do.
        origin: the process that defines it, with a number if it has several of these names; empty
            if it belongs to a module that is installed.
        library: whether it is of no concern to the user when it cannot travel.
    """

    names: tuple[str, ...]
    origin: bytes = b""
    library: bool = False

    def __str__(self) -> str:
        return dotted(self.names[0])


def dotted(name: str) -> str:
    """Returns a name as users write it."""
    return name.replace(":", ".")


class VariableTable:
    """The variables of one process, and their names.

    Attributes:
        nameless: variables that have no name, and those that are Wool's own: they do not travel.
    """

    def __init__(self) -> None:
        self.nameless: dict[Variable, None] = {}
        self._known: dict[Variable, Identity] = {}
        self._variables: dict[tuple[bytes, str], Variable] = {}
        self._numbers = count(1)
        self._lock = threading.RLock()

    def identify(self, variable: Variable, modules: Modules) -> Identity | None:
        """Returns what a variable is called, None if it has no name.

        A name is looked for once, which takes a while. That of a module that was sent here holds
        for one pool only: others may have sent their own version.
        """
        known = self._known.get(variable)
        if known is not None or variable in self.nameless:
            return known
        sent = modules.imported()
        for module, name, found in _bindings(sent):
            if found is variable:
                return Identity((f"{module}:{name}",))
        return self._search(variable, sent)

    def find(self, origin: bytes, names: Sequence[str], modules: Modules) -> Variable | None:
        """Returns the variable with these names, if it is here by now; imports nothing."""
        sent = modules.imported()
        for name in names:
            found = None if origin else _bound(name, sent)
            if found is None:
                found = self._variables.get((origin, name))
            if found is None and origin in (b"", IDENTITIES.process):
                found = _bound(name, sys.modules)
                if found is not None and found not in self._known:
                    library = is_library(name.partition(":")[0])
                    with self._lock:
                        self._add(found, Identity(tuple(names), origin, library))
            if found is not None:
                return found
        return None

    def bring(self, names: Sequence[str], modules: Modules) -> Variable | None:
        """Imports the module of the user's own that has a variable with these names."""
        for name in names:
            module = name.partition(":")[0]
            if modules.named([module]) or not is_library(module):
                with suppress(Exception):  # there will be nothing that could use it
                    modules.find(module)
                    return self.find(b"", [name], modules)
        return None

    def name(self, variable: Variable, modules: Modules) -> Identity:
        """Returns the identity of a variable that travels with the code that uses it."""
        identity = self.identify(variable, modules)
        if identity is None:
            with self._lock:
                name = f"{variable.name}:{next(self._numbers)}"
                identity = self._add(variable, Identity((name,), IDENTITIES.process))
        return identity

    def make(self, identity: Identity, name: str, default: tuple[Any, ...]) -> Variable:
        """Returns the variable with an identity, a new one if there is none."""
        with self._lock:
            for target in identity.names:
                found = self._variables.get((identity.origin, target))
                if found is not None:
                    return found
            made: Variable = ContextVar(name, default=default[0]) if default else ContextVar(name)
            self._add(made, identity)
            return made

    def _search(self, variable: Variable, sent: Mapping[str, ModuleType]) -> Identity | None:
        """Looks through all modules, and remembers every variable there is."""
        with self._lock:
            passed = {found for _, _, found in _bindings(sent)} | self._known.keys()
            bound: dict[Variable, list[Place]] = {}
            for module, name, found in _bindings(sys.modules):
                if found not in passed:
                    bound.setdefault(found, []).append((module, name))
            for found, places in bound.items():
                if any(module.partition(".")[0] in OUR_OWN for module, _ in places):
                    self.nameless[found] = None
                else:
                    self._add(found, _identity(places))
            if variable not in self._known:
                self.nameless[variable] = None
                while len(self.nameless) > MOST_NAMELESS:
                    del self.nameless[next(iter(self.nameless))]
            return self._known.get(variable)

    def _add(self, variable: Variable, identity: Identity) -> Identity:
        """Notes a name. If another variable has it, the new one is another one of that name, or,
        of an installed module, which has only one, takes its place.
        """
        keys = [(identity.origin, name) for name in identity.names]
        before = {self._variables[key] for key in keys if key in self._variables} - {variable}
        if before and identity.origin:
            number = next(self._numbers).to_bytes(4, "big")
            return self._add(variable, replace(identity, origin=IDENTITIES.process + number))
        for old in before:
            self._known.pop(old, None)
            self.nameless[old] = None
        self.nameless.pop(variable, None)
        self._known[variable] = identity
        self._variables.update(dict.fromkeys(keys, variable))
        return identity


# The variables there are, and their names, are a fact of the process.
VARIABLES = VariableTable()


# Where variables are bound ------------------------------------------------------------------------


def _identity(places: list[Place]) -> Identity:
    shared = [place for place in places if findable(place[0])]
    return Identity(
        tuple(f"{module}:{name}" for module, name in (shared or places)[:MOST_NAMES]),
        b"" if shared else IDENTITIES.process,
        all(is_library(module) for module, _ in places),
    )


@cache
def is_library(name: str) -> bool:
    """Whether a module, imported or not, belongs to Python or to an installed distribution."""
    spec = None if name in ("__main__", "__mp_main__") else find_spec(name)
    return spec is not None and not is_own(spec)


def is_local(variable: Variable) -> bool:
    """Whether the user's own code that calls has a variable among its local ones."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        module = str(frame.f_globals.get("__name__"))
        if not module.startswith("wool.") and any(
            held is variable for held in frame.f_locals.values()
        ):
            return not is_library(module)
    return False


def _bindings(modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, str, Variable]]:
    """Yields all variables bound to names of modules and their classes."""
    named: list[tuple[str, object]] = list(modules.items())
    for name, module in named:
        # Neither is a lazy one's __getattr__ to be called, nor are those believed that only claim
        # to be modules, such as cffi's libraries.
        if issubclass(type(module), ModuleType):
            yield from _bindings_in(name, "", object.__getattribute__(module, "__dict__"))


def _bindings_in(
    module: str, prefix: str, scope: Mapping[str, Any]
) -> Iterator[tuple[str, str, Variable]]:
    for name, value in list(scope.items()):
        kind = cast("type[Any]", type(value))
        if kind is ContextVar:
            yield module, prefix + name, value
        elif issubclass(kind, type):
            inside = type.__dict__["__dict__"].__get__(value)
            full_name = type.__dict__["__qualname__"].__get__(value)
            # C code may leave a type that has no namespace yet.
            if inside and inside.get("__module__") == module and full_name == prefix + name:
                yield from _bindings_in(module, f"{full_name}.", inside)


def _bound(target: str, modules: Mapping[str, ModuleType]) -> Variable | None:
    """Returns the variable bound to a name of a module that has been imported."""
    module, _, name = target.partition(":")
    found: Any = modules.get(module)
    if not isinstance(found, ModuleType):
        return None
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, ContextVar) else None  # pyright: ignore[reportUnknownVariableType]


# Variables that code or values refer to -----------------------------------------------------------


def reduce_variable(variable: Variable, modules: Modules) -> tuple[Any, ...]:
    """Reduces a variable for pickling: it travels as its name, with what it takes to make it."""
    identity = VARIABLES.name(variable, modules)
    for target in () if identity.origin else identity.names:
        module, _, name = target.partition(":")
        if modules.named([module]):
            return find_in_module, (module, name)
    default = default_of(variable) if identity.origin else ()  # where it is imported it has one
    return find_variable, (identity.origin, identity.names, variable.name, *default)


def find_variable(origin: bytes, names: tuple[str, ...], name: str, *default: Any) -> Variable:
    """Pickles name this function to refer to a variable; it is made where nobody else does."""
    for target in () if origin else names:
        with suppress(ImportError):
            import_module(target.partition(":")[0])
            found = _bound(target, sys.modules)
            if found is not None:
                return found
    return VARIABLES.make(Identity(names, origin), name, default)


def default_of(variable: Variable) -> tuple[Any, ...]:
    """Returns the default of a variable, nothing if it has none."""
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()
