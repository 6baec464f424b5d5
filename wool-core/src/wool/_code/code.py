"""Code that travels by value: functions and classes as units, each with a key.

A unit is sent once per connection; calls and values name it by its key. A function's key is the
digest of its unit, a class's the one in the class table. Units are written in one
way, whatever the serializer of values is.
"""

from __future__ import annotations

import io
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from wool._code.codepickler import Values, find_culprit, write
from wool._code.functions import globals_of
from wool._code.identity import IDENTITIES, KEY_BYTES
from wool._code.loading import LOADING, NO_REFERENTS
from wool._code.modules import Modules
from wool._code.names import find_object
from wool._code.namespaces import Namespaces
from wool._code.sources import MODULE
from wool._code.units import CodeUnit, MissingCode, digest

LIMIT = 64 << 20
"""Bytes of units that a receiver keeps."""

LOADED = 4 << 10
"""Bytes that a unit counts in addition: what it is loaded into takes more than the unit."""

_MISSING = object()
_GONE = object()

Expected = Callable[[], object]
"""Returns what a variable was bound to."""

Cached: TypeAlias = "tuple[CodeUnit, tuple[Bindings, ...]]"
"""A unit, and what it was made from."""


class Bindings(Struct, frozen=True):
    """The global and closure variables that a function reaches, and what they were bound to.

    It keeps neither the function alive nor, where that can be helped, what they were bound to: that
    leads back to the function if it calls itself.
    """

    function: weakref.ref[FunctionType]
    variables: tuple[tuple[str, Expected], ...]
    cells: tuple[Expected, ...]

    def hold(self) -> bool:
        """Whether the variables are still bound to the same objects."""
        function = self.function()
        if function is None:
            return True  # whatever it was reached by is bound to something else
        scope = function.__globals__
        for name, expected in self.variables:
            if scope.get(name, _MISSING) is not expected():
                return False
        for cell, expected in zip(function.__closure__ or (), self.cells, strict=True):
            if _content(cell) is not expected():
                return False
        return True


class CodeBook:
    """Units of the code of this process, cached while what they were made from is unchanged.

    A cached unit of a function is valid while every global it reaches through functions that
    travel by value is bound to the same object, so redefining a helper takes effect at the next
    call. Changes inside a global object are not noticed. A class keeps its key, as its objects keep
    their class; what its methods reach is sent anew with another edition of its unit.

    Args:
        modules: those that travel as a whole.
        values: what values that code holds are to be treated by.
    """

    def __init__(self, modules: Modules, values: Values | None = None) -> None:
        self.modules = modules
        self._values = values or Values()
        self._functions: weakref.WeakKeyDictionary[FunctionType, Cached] = (
            weakref.WeakKeyDictionary()
        )
        self._classes: dict[bytes, Cached] = {}
        self._alive: dict[bytes, weakref.ref[type]] = {}  # classes of those
        self._lock = threading.Lock()

    def find(self, keys: Iterable[bytes]) -> list[CodeUnit]:
        """Returns those of the units with these keys that can still be had."""
        wanted = set(keys)
        modules = self.modules.units() if any(key.startswith(MODULE) for key in wanted) else []
        with self._lock:
            units = [unit for unit, _ in self._functions.values() if unit.key in wanted]
        classes = (self._class(key) for key in wanted)
        return modules + units + [unit for unit in classes if unit is not None]

    def _class(self, key: bytes) -> CodeUnit | None:
        """Returns the unit of a class under a key that it has or had, if there is one."""
        cls = IDENTITIES.find(key[:KEY_BYTES])
        try:
            return None if cls is None else replace(self.cls(cls), key=key)
        except Exception:  # what its methods use is bound to something else by now
            return None

    def function(self, function: FunctionType) -> CodeUnit:
        """Returns the unit of a function.

        Raises:
            Exception: whatever pickling it raises.
        """
        cached = self._functions.get(function)
        if cached is not None and all(bindings.hold() for bindings in cached[1]):
            return cached[0]
        written = write(function, self.modules, self._values)
        unit = CodeUnit(digest(written.data), written.data, written.provides)
        with self._lock:
            self._functions[function] = unit, tuple(map(_bindings, written.functions))
        return unit

    def culprit(self, function: FunctionType) -> str | None:
        """Names the variable because of which there is no unit of a function."""
        return find_culprit(function, self.modules, self._values)

    def cls(self, cls: type) -> CodeUnit:
        """Returns the unit of a class."""
        key = IDENTITIES.key(cls)
        cached = self._classes.get(key)
        if cached is not None and all(bindings.hold() for bindings in cached[1]):
            return cached[0]
        written = write(cls, self.modules, self._values)
        own = key.startswith(IDENTITIES.process)  # others hear from its owner
        edition = b""
        if cached is not None:
            number = int.from_bytes(cached[0].key[KEY_BYTES:], "big") + 1
            edition = number.to_bytes(4, "big")
        unit = CodeUnit(key + edition, written.data, written.provides)
        with self._lock:
            self._classes[key] = unit, tuple(map(_bindings, written.functions)) if own else ()
            self._alive[key] = weakref.ref(cls, lambda _: self._forget(key))
        return unit

    def _forget(self, key: bytes) -> None:
        del self._classes[key], self._alive[key]

    def key(self, cls: type) -> bytes:
        """Returns the key of the unit of a class, which may not have been written yet."""
        key = IDENTITIES.key(cls)
        return key if key not in self._classes else self.cls(cls).key

    def loaded(self, function: FunctionType, unit: CodeUnit) -> None:
        """Remembers that a function came from a unit: it is passed on as it came."""
        with self._lock:
            self._functions[function] = unit, ()


class CodeStore:
    """Units that have been received, and what they were loaded into.

    It keeps `LIMIT` bytes of them; older ones are forgotten, and asked for again if need be. Units
    may be added on one thread while they are loaded on another.

    Attributes:
        targets: functions of routines that have been found, by what frames call them. It is
            replaced when that may have become another function.
    """

    def __init__(self, book: CodeBook) -> None:
        self._book = book
        self._modules = book.modules
        self._units: OrderedDict[bytes, CodeUnit] = OrderedDict()
        self._loaded: dict[bytes, Any] = {}
        self.targets: dict[str, Any] = {}
        self.builtins: dict[str, Any] = book.modules.builtins
        self._namespaces = Namespaces(self.builtins)
        self._size = 0

    def add(self, unit: CodeUnit) -> None:
        """Keeps a unit."""
        if unit.key in self._units:
            return
        if unit.provides and unit.provides[0].startswith(MODULE):
            self._modules.add(unit)
            self.targets = {}  # they may be of another version now
            return
        self._units[unit.key] = unit
        self._size += len(unit.data) + LOADED
        while self._size > LIMIT and len(self._units) > 1:
            key, old = self._units.popitem(last=False)
            self._loaded.pop(key, None)
            self.targets = {}
            self._size -= len(old.data) + LOADED

    def find(self, keys: Iterable[bytes]) -> list[CodeUnit]:
        """Returns those of the units that are here, to pass them on."""
        return [unit for key in keys if (unit := self._units.get(key)) is not None]

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Returns those of the keys that are not here."""
        return [key for key in keys if key not in self._units and not self._modules.has(key)]

    def module(self, name: str) -> ModuleType:
        """Returns a module that travels.

        Raises:
            MissingCode: it is not here; ask for it.
            Exception: whatever importing it raises.
        """
        return self._modules.find(name)

    def target(self, name: str) -> Any:
        """Returns what is called `module:qualified.name` in a module that travels.

        Raises:
            MissingCode: it is not here; ask for it.
            Exception: whatever importing it raises.
        """
        module, _, qualname = name.partition(":")
        return find_object(self._modules.find(module), qualname)

    def namespace(self, owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
        """Returns the globals that functions of a module of another process share here."""
        return self._namespaces.find(owner, module, base)

    def load(self, key: bytes) -> Any:
        """Returns the function or class with this key.

        Raises:
            MissingCode: it is not here (any more); ask for it.
            Exception: whatever loading it raises.
        """
        found = self._loaded.get(key)
        if found is not None:
            return found
        unit = self._units.get(key)
        if unit is None:
            raise MissingCode(key)
        file = io.BytesIO(unit.data)
        self._modules.require(pickle.load(file))
        with IDENTITIES.lock:
            found = self._loaded.get(key)  # another thread may have loaded it meanwhile
            if found is None:
                found = self._loaded[key] = self._unpickle(file, unit)
        return found

    def _unpickle(self, file: io.BytesIO, unit: CodeUnit) -> Any:
        before = LOADING.set((self, None, NO_REFERENTS))
        try:
            found = pickle.load(file)
        finally:
            LOADING.reset(before)
        if isinstance(found, FunctionType):
            self._book.loaded(found, unit)
        return found


def _bindings(function: FunctionType) -> Bindings:
    """Returns the variables that a function reaches."""
    scope = function.__globals__
    return Bindings(
        weakref.ref(function),
        # The missing code may be defined after all.
        tuple((n, _keep(scope.get(n, _MISSING))) for n in globals_of(function.__code__)),
        tuple(_keep(_content(cell)) for cell in function.__closure__ or ()),
    )


def _keep(value: object) -> Expected:
    """Returns what returns a value, which it keeps alive only if there is no other way."""
    try:
        reference = weakref.ref(value)
    except TypeError:
        return lambda: value
    return lambda: _GONE if (found := reference()) is None else found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _MISSING
