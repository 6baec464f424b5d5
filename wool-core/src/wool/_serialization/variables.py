"""Context variables have names: those of the modules and classes they are bound to.

A variable is the same one in two processes if it is bound to the same name. One that other code
than an installed module defines, such as `__main__`, belongs to the process that defined it; a
worker makes its own copy of it for each such process. What has a name is found once and remembered.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count
from types import ModuleType
from typing import Any, cast

from wool._serialization.arrivals import ARRIVALS, WAITING
from wool._serialization.classes import CLASSES, find_in_module
from wool._serialization.modules import findable
from wool._serialization.namespaces import HOMES
from wool._serialization.owners import is_library, owner
from wool._serialization.rules import OUR_OWN
from wool._serialization.travelling import Modules

Variable = ContextVar[Any]
Sent = Mapping[str, ModuleType]
"""Modules that were sent here, by their names; those that look for variables have them."""

MOST_NAMES = 4
"""A variable that is imported in many places is sent with so many of its names."""

MOST_NAMELESS = 4096
"""So many variables without a name are remembered as such."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a variable the same one elsewhere.

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

    @property
    def keys(self) -> list[tuple[bytes, str]]:
        """The names, each with the process it means something to."""
        return [(self.origin, name) for name in self.names]


def dotted(name: str) -> str:
    """Returns a name as users write it."""
    return name.replace(":", ".")


@dataclass(frozen=True, slots=True)
class Nameless:
    """A variable that cannot be identified.

    Attributes:
        complaint: what the user is told about it; empty if it is a library's affair.
    """

    label: str
    complaint: str = ""


IGNORED = Nameless("")


class VariableTable:
    """The variables of one process, and their names."""

    def __init__(self) -> None:
        self._known: dict[Variable, Identity] = {}
        self._nameless: dict[Variable, Nameless] = {}
        self._variables: dict[tuple[bytes, str], Variable] = {}
        self._numbers = count(1)
        self._lock = threading.RLock()

    def any_set(self) -> bool:
        """Whether the current context has a variable that may be of interest."""
        names = self._nameless.get
        for variable in copy_context():  # noqa: SIM110  # quicker than `any`, with every call
            if names(variable) is not IGNORED:
                return True
        return False

    def identify(self, variable: Variable, value: object, sent: Sent) -> Identity | Nameless:
        """Returns what a variable is called; looks for its name once, which takes a while."""
        known = self._known.get(variable) or self._nameless.get(variable)
        return known or self._search(variable, value, sent)

    def find(self, origin: bytes, names: Sequence[str], sent: Sent) -> Variable | None:
        """Returns the variable with these names, if it is here by now; imports nothing."""
        for name in names:
            if not origin and sent and (found := _bound(name, sent)) is not None:
                if found not in self._known:
                    self._known[found] = Identity(tuple(names))
                return found
            found = self._variables.get((origin, name))
            if found is None and origin in (b"", CLASSES.process):
                found = _bound(name, sys.modules)
                if found is not None:
                    with self._lock:
                        if found not in self._known:
                            library = is_library(name.partition(":")[0])
                            self._add(found, Identity(tuple(names), origin, library))
            if found is not None:
                return found
        return None

    def name(self, variable: Variable, sent: Sent) -> Identity:
        """Returns the identity of a variable that travels with the code that uses it."""
        identity = self.identify(variable, None, sent)
        if isinstance(identity, Nameless):
            with self._lock:
                name = f"{variable.name}:{next(self._numbers)}"
                identity = self._add(variable, Identity((name,), CLASSES.process))
        return identity

    def make(self, identity: Identity, name: str, default: tuple[Any, ...]) -> Variable:
        """Returns the variable with an identity, a new one if there is none."""
        with self._lock:
            found = self.find(identity.origin, identity.names, {})
            if found is not None:
                return found
            made: Variable = ContextVar(name, default=default[0]) if default else ContextVar(name)
            self._add(made, identity)
        ARRIVALS.arrived()
        return made

    def forget(self, sent: Sent) -> None:
        """Forgets the variables of modules that were sent here and are not used any more."""
        with self._lock:
            for _, _, variable in _bindings(sent):
                self._known.pop(variable, None)

    def _add(self, variable: Variable, identity: Identity) -> Identity:
        self._nameless.pop(variable, None)
        self._known[variable] = identity
        for key in identity.keys:
            before = self._variables.get(key)
            if before is not None and before is not variable:
                used = bool(identity.origin) and _is_in_use(before, key[1])
                if not used:
                    self._known.pop(before, None)
                    self._nameless[before] = IGNORED  # another one has its name now
                if used or (identity.origin and _differ(before, variable)):
                    number = next(self._numbers).to_bytes(4, "big")
                    return self._add(variable, replace(identity, origin=CLASSES.process + number))
            self._variables[key] = variable
        return identity

    def _search(self, variable: Variable, value: object, sent: Sent) -> Identity | Nameless:
        """Looks through all modules, and remembers every variable there is."""
        with self._lock:
            for module, name, found in _bindings(sent):
                # It has this name for one pool only: others may have sent their own version.
                self._known.setdefault(found, Identity((f"{module}:{name}",)))
            bindings: dict[Variable, list[tuple[str, str]]] = {}
            for module, name, found in _bindings(sys.modules):
                if found not in self._known:
                    bindings.setdefault(found, []).append((module, name))
            for found, places in bindings.items():
                self._note(found, places)
            known = self._known.get(variable) or self._nameless.get(variable)
            if known is None:
                known = self._nameless[variable] = _nameless(variable, value)
                while len(self._nameless) > MOST_NAMELESS:
                    del self._nameless[next(iter(self._nameless))]
            return known

    def _note(self, variable: Variable, places: list[tuple[str, str]]) -> None:
        if any(module.partition(".")[0] in OUR_OWN for module, _ in places):
            # What waits for its variable is passed on as if it were one.
            self._nameless[variable] = Nameless("") if variable is WAITING else IGNORED
            return
        shared = [place for place in places if findable(place[0])]
        chosen = _definitions_first(shared or places, variable.name)[:MOST_NAMES]
        self._add(
            variable,
            Identity(
                tuple(f"{module}:{name}" for module, name in chosen),
                b"" if shared else CLASSES.process,
                all(is_library(module) for module, _ in places),
            ),
        )


def _nameless(variable: Variable, value: object) -> Nameless:
    if owner(variable, value) is None:
        return IGNORED
    return Nameless(
        variable.name,
        f"the context variable {variable.name!r} cannot be identified: it is bound to no name of a "
        "module or class. It keeps its value here and does not travel; bind it to a name at the "
        "top of a module",
    )


def _bindings(modules: Sent) -> Iterator[tuple[str, str, Variable]]:
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


def _bound(target: str, modules: Sent) -> Variable | None:
    """Returns the variable bound to a name of a module that has been imported."""
    module, _, name = target.partition(":")
    found: Any = modules.get(module)
    if not isinstance(found, ModuleType):
        return None
    return _look_up(found.__dict__, name)


def _look_up(scope: Mapping[str, Any], name: str) -> Variable | None:
    found: Any = None
    for part in name.split("."):
        found = scope.get(part)
        scope = getattr(found, "__dict__", {})
    return found if isinstance(found, ContextVar) else None  # pyright: ignore[reportUnknownVariableType]


def _is_in_use(variable: Variable, target: str) -> bool:
    """Whether a variable still has a name in a module that had the name which another has now.

    In that case both are used, each by the functions of its own module.
    """
    module, _, name = target.partition(":")
    return any(_look_up(scope, name) is variable for scope in HOMES.named(module))


def _differ(one: Variable, other: Variable) -> bool:
    """Whether a worker that has made one of these has to make the other anew: by its default."""
    defaults = *default_of(one), *default_of(other)
    return len(defaults) == 1 or (len(defaults) == 2 and defaults[0] is not defaults[1])


def _definitions_first(places: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """Sorts the modules that define a variable before those that import it."""
    if len(places) < 2:
        return places

    def imports(place: tuple[str, str]) -> tuple[bool, bool]:
        return not _defines(*place), place[1].rpartition(".")[2] != name

    return sorted(places, key=imports)


def _defines(module: str, name: str) -> bool:
    import linecache

    path = getattr(sys.modules.get(module), "__file__", None)
    last = re.escape(name.rpartition(".")[2])
    pattern = re.compile(rf"^\s*{last}\s*(:[^=]+)?=[^=]")
    return path is not None and any(map(pattern.match, linecache.getlines(path)))


# The variables there are, and their names, are a fact of the process.
VARIABLES = VariableTable()


# Variables that code or values refer to -----------------------------------------------------------


def reduce_variable(
    variable: Variable, modules: Modules
) -> tuple[Callable[..., Variable], tuple[Any, ...]]:
    """Reduces a variable for pickling: it travels as its name, with what it takes to make it."""
    identity = VARIABLES.name(variable, modules.imported())
    for target in () if identity.origin else identity.names:
        module, _, name = target.partition(":")
        if modules.named([module]):
            return find_in_module, (module, name)
    default = _default(variable)
    return find_variable, (identity.origin, identity.names, variable.name, *default)


def find_variable(
    origin: bytes, names: tuple[str, ...], name: str, *default: Any
) -> ContextVar[Any]:
    """Pickles name this function to refer to a variable; it is made where nobody else does."""
    if not origin:
        for target in names:
            try:
                import_module(target.partition(":")[0])
            except ImportError:
                continue
            found = VARIABLES.find(origin, (target,), {})
            if found is not None:
                return found
    return VARIABLES.make(Identity(names, origin), name, default)


def default_of(variable: Variable) -> tuple[Any, ...]:
    """Returns the default of a variable, nothing if it has none."""
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _default(variable: Variable) -> tuple[Any, ...]:
    """Returns the default of a variable if that can be pickled."""
    default = default_of(variable)
    if default and not isinstance(default[0], (type(None), bool, int, float, str, bytes)):
        import cloudpickle

        library: Any = cloudpickle
        try:
            library.dumps(default[0])
        except Exception:
            return ()
    return default
