"""Modules of a caller on a worker that has them sent: a finder of the import system.

Each caller's pool has its own: two callers may have different versions of a module of one name. So
these modules do not live in `sys.modules`. Their import statements, and those of all code that
travels by value, look here first. But much of Python asks `sys.modules` for the module of a class,
dataclasses for one, and `importlib.import_module` asks nothing else. So that shows the modules of
the pool whose call began last. A module that this process has by itself is never hidden.
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from wool._code.names import missing_remedy
from wool._code.sources import Source, module_key
from wool._code.units import CodeUnit, MissingCode

if TYPE_CHECKING:
    from importlib.abc import Loader


class ReceivedModules:
    """Modules that a pool has sent to this worker.

    Units may be added on one thread while modules are imported on others: there are several if a
    routine has some, or has opened a pool whose workers are in this process.

    Args:
        where: names this worker in messages.

    Attributes:
        builtins: what code finds under built-in names: its import statements look here.
        version: changes when there are other units than before.
    """

    def __init__(self, where: str) -> None:
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}
        self.version = 0
        self._where = where
        self._units: dict[str, CodeUnit] = {}
        self._sources: dict[str, Source] = {}
        self._seen: set[bytes] = set()
        self._changed: deque[str] = deque()
        self._imported: dict[str, tuple[Source, ModuleType]] = {}
        self._lock = threading.RLock()
        self._executing = 0  # bodies of modules, by who has the lock

    def add(self, unit: CodeUnit) -> None:
        """Takes a module that has arrived, unless a later edition of it is here."""
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
        self.version += 1

    def units(self) -> list[CodeUnit]:
        """Returns all that has arrived, to send it on."""
        return list(self._units.values())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._sources

    def defined(self, name: str) -> frozenset[str]:
        """Returns the names that the body of a module may bind."""
        return frozenset(self._sources[name].code().co_names)

    def require(self, names: Iterable[str]) -> None:
        """Sees to it that modules, and what they import, could be imported.

        Raises:
            MissingCode: one of them is not here; ask for it.
        """
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            source = self._sources.get(name)
            if source is None:
                raise MissingCode(module_key(name))
            waiting += source.needs

    def get(self, name: str) -> ModuleType | None:
        """Returns a module if it has been imported, or is being."""
        imported = self._imported.get(name)
        return None if imported is None else imported[1]

    def imported(self) -> dict[str, ModuleType]:
        """Returns all modules that have been imported, or are being, by their names."""
        return {name: module for name, (_, module) in list(self._imported.items())}

    def find(self, name: str) -> ModuleType:
        """Returns a module, imported.

        Raises:
            MissingCode: it is not here; ask for it.
            Exception: whatever importing it raises.
        """
        imported = self._imported.get(name)
        # While some are executed, perhaps this one, perhaps on another thread: that is waited for.
        if imported is not None and imported[0] is self._sources.get(name) and not self._executing:
            return imported[1]
        self.require([name])
        return self._load(name)

    def enter(self) -> None:
        """User code of this pool is about to run.

        Raises:
            Exception: whatever importing a module anew raises that has been loaded anew at home.
        """
        if OVERLAY.layer is not self:
            OVERLAY.show(self)
        if self._changed:
            with self._lock:
                while self._changed:
                    self._load(self._changed.popleft())

    def leave(self) -> None:
        """No user code of this pool will run any more."""
        if OVERLAY.layer is self:
            OVERLAY.show(None)

    # For the import system ----------------------------------------------------------------------

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Imports a module, if it is one of these, for who asks the import system for it."""
        source = self._sources.get(fullname)
        if source is None:
            return None
        self._load(fullname)
        return self._spec(source)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed when it was found."""

    def get_source(self, name: str) -> str | None:
        """Returns the text of a module."""
        source = self._sources.get(name)
        return None if source is None else source.text

    def _spec(self, source: Source) -> ModuleSpec:
        loader = cast("Loader", self)
        spec = ModuleSpec(source.name, loader, origin=source.filename, is_package=source.package)
        spec.has_location = source.filename is not None
        return spec

    # For import statements ----------------------------------------------------------------------

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stands in for `__import__` in code that has travelled."""
        package = (globals or {}).get("__package__") or ""
        absolute = importlib.util.resolve_name("." * level + name, package) if level else name
        top = absolute.partition(".")[0]
        if top not in self._sources and absolute not in self._sources:
            return self._find_elsewhere(name, globals, locals, tuple(fromlist or ()), level)
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

    def _load(self, name: str) -> ModuleType:
        """Returns a module of this name from here, or one that this worker has by itself."""
        with self._lock:
            above, _, last = name.rpartition(".")
            parent = self._load(above) if above else None
            source = self._sources.get(name)
            if source is None:
                self._find_elsewhere(name)
                return sys.modules[name]
            imported = self._imported.get(name)
            if imported is not None and imported[0] is source:
                return imported[1]
            self._executing += 1
            try:
                module = self._execute(source)
            finally:
                self._executing -= 1
            if parent is not None:
                setattr(parent, last, module)
            return module

    def _execute(self, source: Source) -> ModuleType:
        """Runs the body of a module; if it is here in another version, in the same globals."""
        name, before = source.name, self._imported.get(source.name)
        module = importlib.util.module_from_spec(self._spec(source))
        vars(module)["__builtins__"] = self.builtins
        self._imported[name] = source, module
        OVERLAY.show(self)
        own = None if OVERLAY.shows(name) else sys.modules.get(name)
        OVERLAY.put(name, module)
        sys.modules[name] = module
        if source.filename is not None:  # tracebacks show these lines, whatever that file has here
            lines = source.text.splitlines(keepends=True)
            linecache.cache[source.filename] = len(source.text), None, lines, source.filename
        try:
            exec(source.code(), vars(module))
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

    def _find_elsewhere(self, name: str, *rest: Any) -> ModuleType:
        """Imports what was not sent; says in an error where it is missing, and what to do."""
        try:
            return builtins.__import__(name, *rest)
        except ModuleNotFoundError as error:
            if error.name and self._where not in error.msg:
                error.msg = f"{error.msg} on {self._where}. {missing_remedy(error.name)}"
                error.args = (error.msg,)
            raise


class Overlay:
    """Lays the modules of one pool at a time over `sys.modules`.

    Attributes:
        layer: what is shown, if anything is.
    """

    def __init__(self) -> None:
        self.layer: ReceivedModules | None = None
        self._lock = threading.RLock()
        self._shown: dict[str, ModuleType] = {}

    def show(self, layer: ReceivedModules | None) -> None:
        """Shows a layer instead of the one that was shown; None shows none."""
        if self.layer is layer:
            return
        with self._lock:
            for name in list(self._shown):
                self.hide(name)
            if self.layer in sys.meta_path:
                sys.meta_path.remove(self.layer)
            self.layer = layer
            if layer is not None:
                sys.meta_path.append(layer)
                for name, module in layer.imported().items():
                    self.put(name, module)

    def put(self, name: str, module: ModuleType) -> None:
        """Shows a module, unless this process has another one by itself."""
        with self._lock:
            if name in self._shown or name not in sys.modules:
                self._shown[name] = sys.modules[name] = module

    def hide(self, name: str) -> None:
        """Shows a module no more."""
        with self._lock:
            module = self._shown.pop(name, None)
            if module is not None and sys.modules.get(name) is module:
                del sys.modules[name]

    def shows(self, name: str) -> bool:
        """Whether a module of this name is here because it was shown."""
        return name in self._shown


# `sys.modules` is a fact of the process, so what it shows is too.
OVERLAY = Overlay()
