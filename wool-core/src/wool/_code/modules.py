"""Modules of the user's own project on their way to workers that lack them.

A module travels as its source, and a worker executes that as importing it would: what it defines
exists there once, under the names it has at home. Values and code refer to it by name.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from operator import attrgetter, is_not
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from msgspec.structs import replace

from wool._code import names
from wool._code.received import OVERLAY, ReceivedModules
from wool._code.rules import Rules, all_within, find_spec, is_own
from wool._code.sources import (
    MODULE,
    Source,
    mentioned,
    module_key,
    read_text,
    with_parents,
)
from wool._code.units import CodeUnit, digest

QualifiedName = tuple[str, str]
"""Names a function or class: its module, and its qualified name in it."""

_SPEC_OF = attrgetter("__spec__")


class Modules:
    """The modules that travel, as one side of a pool sees them.

    A pool sends modules of its own process. A worker that lacks them receives them. A pool that is
    opened there by a routine sends both: what was received, and what its rules say of the rest.

    Args:
        rules: which modules of this process are sent.
        received: those that were sent to this process; of two of one name it is the one meant.
        arriving: whether more of those may come from the other side.

    Attributes:
        builtins: what functions that travel by value find under built-in names.
        travelling: whether there are any, as far as the rules say.
        imported_alike: whether workers that this process starts import what it has of them.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        received: ReceivedModules | None = None,
        *,
        arriving: bool = False,
    ) -> None:
        self.imported_alike: bool = received is None
        self.builtins: dict[str, Any] = builtins.__dict__ if received is None else received.builtins
        self._received = received or ReceivedModules("nowhere")  # none, and none is shown
        self._arriving = arriving
        self._version = 0
        self._lock = threading.RLock()
        self.obey(rules or Rules())

    def within(self, pool: str, rules: Rules) -> Modules:
        """Returns the modules of a pool, by its id, that is made by code which has these."""
        if self.imported_alike:
            return Modules(rules)
        made = RELAYED[pool] = Modules(rules, self._received)
        return made

    def obey(self, rules: Rules) -> None:
        """Takes other rules, for what has not been sent yet."""
        self._rules = rules
        self.travelling: bool = rules.travels or not self.imported_alike
        self._travels: dict[str, bool] = {}
        self._units: dict[str, CodeUnit] = {}
        self._defined: dict[str, frozenset[str]] = {}
        self._loaded: dict[str, ModuleType] = {}
        self._specs: dict[str, ModuleSpec] = {}  # of those, when they were read
        self._unloaded: set[str] = set()
        self._editions: dict[str, int] = {}
        self._listed = not rules.ship

    # How something is referred to ---------------------------------------------------------------

    def qualified_name(self, obj: Any) -> QualifiedName | None:
        """Returns how a function or class is referred to, if it is of a module that travels."""
        if not self.travelling:
            return None
        name = getattr(obj, "__module__", None)
        module = self._find_sent(name)
        found = module is not None and names.is_found(obj, module)
        return (name, obj.__qualname__) if found and name is not None else None

    def may_refer_to(self, name: object) -> bool:
        """Whether definitions of a module may be referred to by name; quick to say no."""
        if not isinstance(name, str):
            return False
        if self.travelling and self._is_sent(name):
            return True
        return bool(self._rules.by_reference) or names.findable(name)

    def importable(self, obj: Any) -> bool:
        """Whether a function or class is found on workers by its name alone."""
        name = getattr(obj, "__module__", None)
        if name in self._received:
            return False
        if self._rules.by_reference:
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module is not None and self._rules.decided(module.__name__) is False:
                return names.is_found(obj, module)
        return names.importable(obj)

    def name(self, scope: dict[str, Any]) -> str | None:
        """Returns the name of the module whose globals these are, if it travels."""
        name = scope.get("__name__")
        module = self._find_sent(name)
        return name if module is not None and getattr(module, "__dict__", None) is scope else None

    def defined(self, name: str) -> frozenset[str]:
        """Returns the names that the body of a module that travels may bind."""
        if name in self._received:
            return self._received.defined(name)
        return self._defined.get(name, frozenset())

    def mention(self, obj: Any) -> None:
        """Sees to it that the module of an object can be found by name, as some pickle themselves.

        Such are caches around functions, and whatever returns a string from `__reduce__`.
        """
        if self._rules.travels:
            try:
                name = obj.__module__
            except Exception:
                return
            self._find_sent(name)

    def named(self, mentioned: Iterable[str]) -> list[str]:
        """Returns those of the names that are of modules that travel."""
        found = list(filter(self._is_sent, dict.fromkeys(with_parents(mentioned))))
        self._include(name for name in found if name not in self._received)
        return found

    def _find_sent(self, name: object) -> ModuleType | None:
        """Returns the module of a name if it travels and has been imported."""
        if not isinstance(name, str) or not self._is_sent(name):
            return None
        if name in self._received:
            return self._received.get(name)
        if name not in self._units:
            self._include([name])
        return sys.modules.get(name)

    def _is_sent(self, name: str) -> bool:
        return name in self._received or (self._rules.travels and self._is_own(name))

    # Sending ------------------------------------------------------------------------------------

    def version(self) -> int:
        """Returns a number that changes when there are other units than before."""
        with self._lock:  # loops of several threads may use one pool
            # With every call: in one go, for there may be hundreds. Specs are equal by content.
            if any(map(is_not, map(_SPEC_OF, self._loaded.values()), self._specs.values())):
                self._read_anew()
            for name in self._unloaded & sys.modules.keys() if self._unloaded else ():
                self._include([name], anew=True)
            return self._version + self._received.version

    def units(self) -> list[CodeUnit]:
        """Returns all that a worker has to have."""
        with self._lock:
            # A module shown in `sys.modules` may be taken for this process's own.
            own = [unit for name, unit in self._units.items() if name not in self._received]
        return [*own, *self._received.units()]

    def _is_own(self, name: str) -> bool:
        """Whether a module of this process is sent to workers that it has not started."""
        travels = self._travels.get(name)
        if travels is None:
            travels = self._travels[name] = self._judge(name)
        return travels

    def _judge(self, name: str) -> bool:
        if name in sys.modules and not names.findable(name):
            return False  # its functions travel one by one
        decided = self._rules.decided(name)
        if decided is False:
            return False
        spec = find_spec(name)
        if spec is None or spec.name != name or not (decided or is_own(spec)):
            return False
        return read_text(spec) is not None

    def _read_anew(self) -> None:
        """Reads modules again that have been loaded anew, from another text perhaps."""
        for name, spec in list(self._specs.items()):
            if self._loaded[name].__spec__ is not spec:
                self._editions[name] = self._editions.get(name, 0) + 1
                self._include([name], anew=True)

    def _include(self, wanted: Iterable[str], *, anew: bool = False) -> None:
        """Adds modules, and all that they import, to what workers have to have."""
        with self._lock:
            if not self._listed:
                self._listed = True
                for listed in self._rules.ship:
                    self._include(filter(self._is_own, with_parents(all_within(listed))))
            waiting = list(wanted)
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
        try:
            code = source.code()
        except (SyntaxError, ValueError):
            return source  # importing it fails there as it does here
        self._defined[name] = frozenset(code.co_names)
        above = name.rpartition(".")[0]
        said = with_parents([above, *mentioned(code, name if package else above)])
        needs = sorted({n for n in said if n not in ("", name) and self._is_own(n)})
        return replace(source, needs=tuple(needs))

    # Receiving ----------------------------------------------------------------------------------

    def add(self, unit: CodeUnit) -> None:
        """Takes a module that has arrived; nothing comes that is not here if none may arrive."""
        if self._arriving:
            self._received.add(unit)

    def has(self, key: bytes) -> bool:
        """Whether the module that is asked for under a key is here."""
        return key.startswith(MODULE) and key[len(MODULE) :].decode() in self._received

    def require(self, wanted: Iterable[str]) -> None:
        """Sees to it that modules, and what they import, could be imported.

        Raises:
            MissingCode: one of them is not here; ask for it.
        """
        self._received.require(n for n in wanted if self._arriving or n in self._received)

    def find(self, name: str) -> ModuleType:
        """Returns a module, imported.

        Raises:
            MissingCode: it is not here; ask for it.
            Exception: whatever importing it raises.
        """
        if self._arriving or name in self._received:
            return self._received.find(name)
        return import_module(name)

    def imported(self) -> Mapping[str, ModuleType]:
        """Returns modules that were sent here and have been imported, by their names."""
        return self._received.imported()

    def enter(self) -> None:
        """User code of this side is about to run.

        Raises:
            Exception: whatever importing a module anew raises that has been loaded anew at home.
        """
        if self.imported_alike:
            OVERLAY.show(None)
        else:
            self._received.enter()

    def leave(self) -> None:
        """No user code of this side will run any more."""
        if self._arriving:
            self._received.leave()


# Which pools of this process send on what it was sent is a fact of the process. Its workers may be
# in it, too.
RELAYED: WeakValueDictionary[str, Modules] = WeakValueDictionary()
