"""Modules of the user's own project on their way to workers that lack them.

A module travels as its source, and a worker executes that as importing it would: what it defines
exists there once, under the names it has at home. Values and code refer to it by name. The process
that they are from has `LocalModules`, a worker that has them sent `received.ReceivedModules`.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.machinery import ModuleSpec
from operator import attrgetter, is_not
from types import MappingProxyType, ModuleType
from typing import Any, Protocol

from wool._serialization import modules
from wool._serialization.overlay import OVERLAY
from wool._serialization.rules import Rules, all_within, find_spec, is_own
from wool._serialization.sources import (
    Source,
    mentioned,
    module_key,
    read_code,
    read_text,
    with_parents,
)
from wool._serialization.units import CodeUnit, digest

QualifiedName = tuple[str, str]
"""Names a function or class: its module, and its qualified name in it."""


_SPEC_OF = attrgetter("__spec__")

NONE_SENT: Mapping[str, ModuleType] = MappingProxyType({})


class Modules(Protocol):
    """The modules that travel, as one side of a pool sees them.

    Attributes:
        builtins: what functions that travel by value find under built-in names.
        imported_alike: whether workers that this process starts import what it has of them.
    """

    builtins: dict[str, Any]
    imported_alike: bool

    def within(self, pool: str, rules: Rules) -> Modules:
        """Returns the modules of a pool, by its id, that is made by code which has these."""
        ...

    def version(self) -> int:
        """Returns a number that changes when there are other units than before."""
        ...

    def qualified_name(self, obj: Any) -> QualifiedName | None:
        """Returns how a function or class is referred to, if it is of a module that travels."""
        ...

    def mention(self, obj: Any) -> None:
        """Sees to it that the module of an object can be found by name, as some pickle themselves.

        Such are caches around functions, and whatever returns a string from `__reduce__`.
        """
        ...

    def importable(self, obj: Any) -> bool:
        """Whether a function or class is found on workers by its name alone."""
        ...

    def name(self, scope: dict[str, Any]) -> str | None:
        """Returns the name of the module whose globals these are, if it travels."""
        ...

    def defined(self, name: str) -> frozenset[str]:
        """Returns the names that the body of a module that travels may bind."""
        ...

    def named(self, names: Iterable[str]) -> list[str]:
        """Returns those of the names that are of modules that travel."""
        ...

    def units(self) -> list[CodeUnit]:
        """Returns all that a worker has to have."""
        ...

    def add(self, unit: CodeUnit) -> None:
        """Takes a module that has arrived."""
        ...

    def has(self, key: bytes) -> bool:
        """Whether the module that is asked for under a key is here."""
        ...

    def require(self, names: Iterable[str]) -> None:
        """Sees to it that modules, and what they import, could be imported.

        Raises:
            MissingCode: one of them is not here; ask for it.
        """
        ...

    def find(self, name: str) -> ModuleType:
        """Returns a module, imported.

        Raises:
            MissingCode: it is not here; ask for it.
            Exception: whatever importing it raises.
        """
        ...

    def imported(self) -> Mapping[str, ModuleType]:
        """Returns modules that were sent here and have been imported, by their names."""
        ...

    def enter(self) -> None:
        """User code of this side is about to run.

        Raises:
            Exception: whatever importing a module anew raises that has been loaded anew at home.
        """
        ...

    def leave(self) -> None:
        """No user code of this side will run any more."""
        ...


class LocalModules:
    """Modules of this process, or of one that imports the same.

    Args:
        rules: which of them travel.
    """

    imported_alike = True

    def __init__(self, rules: Rules | None = None) -> None:
        self._version = 0
        self.builtins: dict[str, Any] = builtins.__dict__
        self._lock = threading.RLock()
        self.obey(rules or Rules())

    def within(self, pool: str, rules: Rules) -> LocalModules:
        return LocalModules(rules)

    def obey(self, rules: Rules) -> None:
        """Takes other rules, for what has not been sent yet."""
        self._rules = rules
        self._travels: dict[str, bool] = {}
        self._units: dict[str, CodeUnit] = {}
        self._defined: dict[str, frozenset[str]] = {}
        self._loaded: dict[str, ModuleType] = {}
        self._specs: dict[str, ModuleSpec] = {}  # of those, when they were read
        self._unloaded: set[str] = set()
        self._editions: dict[str, int] = {}
        self._listed = not rules.ship

    def version(self) -> int:
        with self._lock:  # loops of several threads may use one pool
            # With every call: in one go, for there may be hundreds. Specs are equal by content.
            if any(map(is_not, map(_SPEC_OF, self._loaded.values()), self._specs.values())):
                self._read_anew()
            for name in self._unloaded & sys.modules.keys() if self._unloaded else ():
                self._include([name], anew=True)
            return self._version

    def _read_anew(self) -> None:
        """Reads modules again that have been loaded anew, from another text perhaps."""
        for name, spec in list(self._specs.items()):
            if self._loaded[name].__spec__ is not spec:
                self._editions[name] = self._editions.get(name, 0) + 1
                self._include([name], anew=True)

    def qualified_name(self, obj: Any) -> QualifiedName | None:
        if not self._rules.travels:
            return None
        name = getattr(obj, "__module__", None)
        if not isinstance(name, str) or not self.travels(name):
            return None
        module = sys.modules.get(name)
        if module is None or not modules.is_found(obj, module):
            return None
        if name not in self._units:
            self._include([name])
        return name, obj.__qualname__

    def mention(self, obj: Any) -> None:
        if not self._rules.travels:
            return
        try:
            name = obj.__module__
        except Exception:
            return
        if isinstance(name, str) and name not in self._units and self.travels(name):
            self._include([name])

    def importable(self, obj: Any) -> bool:
        if self._rules.by_reference:
            name = getattr(obj, "__module__", None)
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module is not None and self._rules.decided(module.__name__) is False:
                return modules.is_found(obj, module)
        return modules.importable(obj)

    def name(self, scope: dict[str, Any]) -> str | None:
        if not self._rules.travels:
            return None
        name = scope.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if name is None or getattr(module, "__dict__", None) is not scope:
            return None
        if not self.travels(name):
            return None
        if name not in self._units:
            self._include([name])
        return name

    def defined(self, name: str) -> frozenset[str]:
        return self._defined.get(name, frozenset())

    def named(self, names: Iterable[str]) -> list[str]:
        if not self._rules.travels:
            return []
        found = [name for name in dict.fromkeys(with_parents(names)) if self.travels(name)]
        self._include(found)
        return found

    def units(self) -> list[CodeUnit]:
        with self._lock:
            return list(self._units.values())

    def add(self, unit: CodeUnit) -> None:
        """Nothing comes that is not here."""

    def has(self, key: bytes) -> bool:
        return False

    def require(self, names: Iterable[str]) -> None:
        """All modules are here."""

    def find(self, name: str) -> ModuleType:
        return import_module(name)

    def imported(self) -> Mapping[str, ModuleType]:
        return NONE_SENT

    def enter(self) -> None:
        if OVERLAY.layer is not None:
            OVERLAY.show(None)

    def leave(self) -> None:
        """Nothing has to be done."""

    def travels(self, name: str) -> bool:
        """Whether a module is sent to workers that this process has not started."""
        travels = self._travels.get(name)
        if travels is None:
            travels = self._travels[name] = self._judge(name)
        return travels

    def _judge(self, name: str) -> bool:
        if name in sys.modules and not modules.findable(name):
            return False  # its functions travel one by one
        decided = self._rules.decided(name)
        if decided is False:
            return False
        spec = find_spec(name)
        if spec is None or spec.name != name or not (decided or is_own(spec)):
            return False
        return read_text(spec) is not None

    def _include(self, names: Iterable[str], *, anew: bool = False) -> None:
        """Adds modules, and all that they import, to what workers have to have."""
        with self._lock:
            if not self._listed:
                self._listed = True
                for listed in self._rules.ship:
                    self._include(filter(self.travels, with_parents(all_within(listed))))
            waiting = list(names)
            while waiting:
                name = waiting.pop()
                spec = find_spec(name) if anew or name not in self._units else None
                if spec is None:
                    continue
                anew = False
                source = self._read(name, spec)
                data = source.dump()
                unit = CodeUnit(digest(data), data, (module_key(name),))
                if name in sys.modules:
                    self._loaded[name] = sys.modules[name]
                    self._specs[name] = spec
                    self._unloaded.discard(name)
                else:
                    self._unloaded.add(name)
                if unit != self._units.get(name):
                    self._units[name] = unit
                    self._version += 1
                waiting += source.needs

    def _read(self, name: str, spec: ModuleSpec) -> Source:
        package = spec.submodule_search_locations is not None
        text = read_text(spec) or ""
        filename = spec.origin if spec.has_location else None
        edition = self._editions.get(name, 0)
        source = Source(name, package, filename, text, edition=edition)
        code = read_code(spec) or source.code_if_valid()
        if code is None:
            return source  # importing it fails there as it does here
        self._defined[name] = frozenset(code.co_names)
        inside = name if package else name.rpartition(".")[0]
        above = name.rpartition(".")[0]
        said = with_parents([*([above] if above else []), *mentioned(code, inside)])
        needs = sorted({n for n in said if n != name and self.travels(n)})
        return replace(source, needs=tuple(needs))
