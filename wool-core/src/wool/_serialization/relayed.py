"""Modules of a pool that a routine has opened on a worker which its own modules were sent to.

The workers of that pool lack them as well, also those that this process starts. So they are sent
on, beside what this process can import and the pool sends by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from wool._serialization.rules import Rules
from wool._serialization.sources import module_key
from wool._serialization.travelling import LocalModules, Modules, QualifiedName
from wool._serialization.units import CodeUnit


class RelayedModules:
    """Modules that were sent to this process and are sent on, and others that it can import.

    Args:
        pool: its id.
        received: the former; they come first, as they do for the code that they are.
        rules: which of the latter travel.
    """

    imported_alike = False

    def __init__(self, pool: str, received: Modules, rules: Rules) -> None:
        self._received = received
        self._local = LocalModules(rules)
        self.builtins: dict[str, Any] = received.builtins
        RELAYED[pool] = self

    def within(self, pool: str, rules: Rules) -> RelayedModules:
        return RelayedModules(pool, self._received, rules)

    def version(self) -> int:
        return self._received.version() + self._local.version()

    def units(self) -> list[CodeUnit]:
        # What is shown in `sys.modules` may be taken for this process's own, by what imports it.
        own = [unit for unit in self._local.units() if not self._received.has(unit.provides[0])]
        return [*own, *self._received.units()]

    def qualified_name(self, obj: Any) -> QualifiedName | None:
        if self._is_received(getattr(obj, "__module__", None)):
            return self._received.qualified_name(obj)
        return self._local.qualified_name(obj)

    def mention(self, obj: Any) -> None:
        try:
            name = obj.__module__
        except Exception:
            return
        if not self._is_received(name):
            self._local.mention(obj)

    def importable(self, obj: Any) -> bool:
        if self._is_received(getattr(obj, "__module__", None)):
            return False
        return self._local.importable(obj)

    def name(self, scope: dict[str, Any]) -> str | None:
        if self._is_received(scope.get("__name__")):
            return self._received.name(scope)
        return self._local.name(scope)

    def defined(self, name: str) -> frozenset[str]:
        side = self._received if self._is_received(name) else self._local
        return side.defined(name)

    def named(self, names: Iterable[str]) -> list[str]:
        names = list(names)
        received = self._received.named(names)
        return [*received, *self._local.named(n for n in names if not self._is_received(n))]

    def add(self, unit: CodeUnit) -> None:
        """Nothing comes that is not here."""

    def has(self, key: bytes) -> bool:
        return self._received.has(key)

    def require(self, names: Iterable[str]) -> None:
        self._received.require(name for name in names if self._is_received(name))

    def find(self, name: str) -> ModuleType:
        side = self._received if self._is_received(name) else self._local
        return side.find(name)

    def imported(self) -> Mapping[str, ModuleType]:
        return self._received.imported()

    def enter(self) -> None:
        self._received.enter()

    def leave(self) -> None:
        """What is here stays: it belongs to the pool around this one."""

    def _is_received(self, name: object) -> bool:
        return isinstance(name, str) and self._received.has(module_key(name))


# Which pools of this process relay modules is a fact of the process. Its workers may be in it, too.
RELAYED: WeakValueDictionary[str, RelayedModules] = WeakValueDictionary()
