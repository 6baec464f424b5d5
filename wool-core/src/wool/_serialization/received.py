"""Modules of a caller on a worker that has them sent.

Each caller's pool has its own: two callers may have different versions of a module of one name.
So these modules do not live in `sys.modules`, though they are shown there, see `overlay`. Their
import statements, and those of all code that travels by value, look here first.
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from wool._serialization import modules
from wool._serialization.overlay import OVERLAY
from wool._serialization.relayed import RelayedModules
from wool._serialization.rules import Rules
from wool._serialization.sources import MODULE, Source, module_key, with_parents
from wool._serialization.travelling import QualifiedName
from wool._serialization.units import CodeUnit, MissingCode

if TYPE_CHECKING:
    from importlib.abc import Loader


class ReceivedModules:
    """Modules that a pool has sent to this worker.

    Units may be added on one thread while modules are imported on others: there are several if a
    routine has some, or has opened a pool whose workers are in this process.

    Args:
        where: names this worker in messages.
    """

    imported_alike = False

    def __init__(self, where: str) -> None:
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}
        self._where = where
        self._units: dict[str, CodeUnit] = {}
        self._sources: dict[str, Source] = {}
        self._seen: set[bytes] = set()
        self._complete: set[str] = set()
        self._changed: deque[str] = deque()
        self._imported: dict[str, tuple[Source, ModuleType]] = {}
        self._lock = threading.RLock()
        self._executing = 0  # bodies of modules, by who has the lock
        self._version = 0

    def within(self, pool: str, rules: Rules) -> RelayedModules:
        return RelayedModules(pool, self, rules)

    # What is here -------------------------------------------------------------------------------

    def version(self) -> int:
        return self._version

    def units(self) -> list[CodeUnit]:
        return list(self._units.values())

    def add(self, unit: CodeUnit) -> None:
        if unit.key in self._seen:
            return  # workers send on what they were sent, and what was made from it is in use
        self._seen.add(unit.key)
        source = Source.load(unit.data)
        known = self._sources.get(source.name)
        if known is not None and known.edition > source.edition:
            return
        self._units[source.name] = unit
        self._sources[source.name] = source
        if source.name in self._imported:
            self._changed.append(source.name)
        self._complete = set()
        self._version += 1

    def has(self, key: bytes) -> bool:
        return key.startswith(MODULE) and key[len(MODULE) :].decode() in self._sources

    def require(self, names: Iterable[str]) -> None:
        complete = self._complete  # not that of another edition, which may arrive meanwhile
        waiting = [name for name in names if name not in complete]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            source = self._sources.get(name)
            if source is None:
                raise MissingCode(module_key(name))
            waiting += source.needs
        complete.update(seen)

    def named(self, names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(with_parents(names)) if name in self._sources]

    # What refers to it --------------------------------------------------------------------------

    def qualified_name(self, obj: Any) -> QualifiedName | None:
        imported = self._imported.get(getattr(obj, "__module__", None) or "")
        if imported is None or not modules.is_found(obj, imported[1]):
            return None
        return imported[0].name, obj.__qualname__

    def mention(self, obj: Any) -> None:
        """Whoever needs its module has it, or asks for it."""

    def importable(self, obj: Any) -> bool:
        return getattr(obj, "__module__", None) not in self._sources and modules.importable(obj)

    def name(self, scope: dict[str, Any]) -> str | None:
        imported = self._imported.get(scope.get("__name__", ""))
        return None if imported is None or vars(imported[1]) is not scope else imported[0].name

    def defined(self, name: str) -> frozenset[str]:
        return frozenset(self._sources[name].code().co_names)

    # Importing ----------------------------------------------------------------------------------

    def find(self, name: str) -> ModuleType:
        imported = self._imported.get(name)
        # While some are executed, perhaps this one, perhaps on another thread: that is waited for.
        if imported is not None and imported[0] is self._sources.get(name) and not self._executing:
            return imported[1]
        self.require([name])
        return self._load(name)

    def enter(self) -> None:
        OVERLAY.show(self)
        if self._changed:
            with self._lock:
                while self._changed:
                    self._load(self._changed.popleft())

    def leave(self) -> None:
        if OVERLAY.layer is self:
            OVERLAY.show(None)

    def imported(self) -> dict[str, ModuleType]:
        return {name: module for name, (_, module) in list(self._imported.items())}

    def spec(self, name: str) -> ModuleSpec | None:
        source = self._sources.get(name)
        if source is None:
            return None
        self._load(name)
        return _Loader(self).spec(source)

    def source(self, name: str) -> Source | None:
        """Returns the source of a module, if it is here."""
        return self._sources.get(name)

    def _load(self, name: str) -> ModuleType:
        """Returns a module of this name from here, or one that this worker has by itself."""
        with self._lock:
            above, _, last = name.rpartition(".")
            parent = self._load(above) if above else None
            source = self._sources.get(name)
            if source is None:
                return self._find_elsewhere(name)
            imported = self._imported.get(name)
            if imported is not None and imported[0] is source:
                return imported[1]
            self._executing += 1
            try:
                module = self._execute(source, None if imported is None else imported[1])
            finally:
                self._executing -= 1
            if parent is not None:
                setattr(parent, last, module)
            return module

    def _execute(self, source: Source, module: ModuleType | None) -> ModuleType:
        """Runs the body of a module; if it is here in another version, in the same globals."""
        name, before = source.name, self._imported.get(source.name)
        if module is None:
            module = importlib.util.module_from_spec(_Loader(self).spec(source))
        scope = vars(module)
        scope["__builtins__"] = self.builtins
        self._imported[name] = source, module
        OVERLAY.show(self)
        own = None if OVERLAY.shows(name) else sys.modules.get(name)
        OVERLAY.put(name, module)
        sys.modules[name] = module
        _remember_lines(source)
        try:
            exec(source.code(), scope)
            # A module may have put something else into its place, as in any import.
            module = sys.modules.get(name, module)
            self._imported[name] = source, module
            OVERLAY.put(name, module)
        except BaseException:
            OVERLAY.hide(name)
            if before is None:
                del self._imported[name]
            else:
                self._imported[name] = before
            raise
        finally:
            if own is not None:
                sys.modules[name] = own
        return module

    def _find_elsewhere(self, name: str) -> ModuleType:
        try:
            builtins.__import__(name)
        except ModuleNotFoundError as error:
            self._explain(error)
            raise
        return sys.modules[name]

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stands in for `__import__` in code that has travelled."""
        absolute = name
        if level:
            package = _package(globals or {})
            absolute = importlib.util.resolve_name("." * level + name, package)
        top = absolute.partition(".")[0]
        if top not in self._sources and absolute not in self._sources:
            try:
                return builtins.__import__(name, globals, locals, tuple(fromlist or ()), level)
            except ModuleNotFoundError as error:
                self._explain(error)
                raise
        OVERLAY.show(self)
        module = self._load(absolute)
        if not fromlist:
            return self._load(top)
        self._import_named(module, absolute, fromlist)
        return module

    def _import_named(self, module: ModuleType, name: str, wanted: Iterable[str]) -> None:
        """Imports those modules in a package that `from package import …` names."""
        if not hasattr(module, "__path__"):
            return
        for item in wanted:
            if item == "*":
                self._import_named(module, name, getattr(module, "__all__", ()))
            elif not hasattr(module, item) and f"{name}.{item}" in self._sources:
                self._load(f"{name}.{item}")

    def _explain(self, error: ModuleNotFoundError) -> None:
        """Says in an error where a module is missing, and what to do."""
        name = error.name or ""
        if self._where in error.msg or not name:
            return
        error.msg = f"{error.msg} on {self._where}. {modules.missing_remedy(name)}"
        error.args = (error.msg,)


def _package(scope: Mapping[str, Any]) -> str:
    """Returns what relative imports of code with these globals are relative to."""
    package = scope.get("__package__")
    if isinstance(package, str):
        return package
    name = str(scope.get("__name__", ""))
    return name if "__path__" in scope else name.rpartition(".")[0]


def _remember_lines(source: Source) -> None:
    """Has tracebacks show the lines that run here, whatever file there is or was of that name."""
    if source.filename is not None:
        lines = source.text.splitlines(keepends=True)
        linecache.cache[source.filename] = len(source.text), None, lines, source.filename


class _Loader:
    """Lets the import system have modules that have arrived."""

    def __init__(self, modules: ReceivedModules) -> None:
        self._modules = modules

    def spec(self, source: Source) -> ModuleSpec:
        loader = cast("Loader", self)
        spec = ModuleSpec(source.name, loader, origin=source.filename, is_package=source.package)
        spec.has_location = source.filename is not None
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._modules.imported().get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed when it was found."""

    def get_source(self, name: str) -> str | None:
        """Returns the text of a module."""
        source = self._modules.source(name)
        return None if source is None else source.text
