"""Values of context variables whose module has not been imported here, kept until it is.

They wait in the context they are for, so whoever has that context or a copy of it gets them. When
such a module has been imported, its variables are set in the context that imported it; whoever
runs code in other contexts is told. A value that waits is passed on with calls as it came.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from wool.abc import Buffer

if TYPE_CHECKING:
    from importlib.abc import Loader  # slow to import, and of no use beyond its name

Key = tuple[bytes, tuple[str, ...]]
Find = Callable[[bytes, Sequence[str]], "ContextVar[Any] | None"]


class Waiting:
    """A value that waits for its variable.

    Args:
        find: finds the variable, if it is here.
        load: rebuilds it; raises whatever that raises.
        failed: is told if that fails.

    Attributes:
        variable: the variable, once it has arrived.
        value: what it was then set to.
    """

    def __init__(
        self,
        origin: bytes,
        names: Sequence[str],
        segments: Sequence[Buffer],
        find: Find,
        load: Callable[[Sequence[Buffer]], Any],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.key: Key = (origin, tuple(names))
        self.segments = [bytes(segment) for segment in segments]
        self.variable: ContextVar[Any] | None = None
        self.value: Any = None
        self._find = find
        self._load = load
        self._failed = failed

    @property
    def arrived(self) -> bool:
        """Whether the variable is here."""
        return self._find(*self.key) is not None

    def settle(self) -> None:
        """Sets the variable in the current context; the value is the same object in all of them."""
        variable = self._find(*self.key)
        if variable is None:
            return
        if self.variable is None:
            try:
                self.value = self._load(self.segments)
            except Exception as error:
                self._failed(self.key[1][0], error)
                return
            self.variable = variable
        variable.set(self.value)


WAITING: ContextVar[Mapping[Key, Waiting]] = ContextVar("wool_waiting")


def wait(value: Waiting) -> None:
    """Keeps a value in the current context until its variable is there."""
    WAITING.set({**drop(value.key), value.key: value})
    ARRIVALS.expect(value.key)


def drop(key: Key) -> dict[Key, Waiting]:
    """Forgets what waits for a variable in the current context; returns the rest."""
    waiting = WAITING.get({})
    rest = {k: w for k, w in waiting.items() if k[0] != key[0] or not set(k[1]) & set(key[1])}
    if len(rest) < len(waiting):
        WAITING.set(rest)
    return rest


class Arrivals:
    """Notices when modules are imported that values wait for; a finder of the import system."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._listeners: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def expect(self, key: Key) -> None:
        """Watches for the modules of a variable."""
        self._wanted.update(name.partition(":")[0] for name in key[1])
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def listen(self, listener: Any) -> None:
        """Has `listener.settle_contexts()` called when variables have arrived."""
        self._listeners[id(listener)] = listener

    def settle(self) -> None:
        """Sets the variables that have arrived in the current context."""
        waiting = WAITING.get(None)
        if not waiting:
            return
        arrived = {key for key, value in waiting.items() if value.arrived}
        if arrived:
            WAITING.set({k: w for k, w in waiting.items() if k not in arrived})
        for key in arrived:
            waiting[key].settle()

    def arrived(self) -> None:
        """There are variables that were not there before."""
        self.settle()
        for reference in self._listeners.valuerefs():  # in one go: other threads add to them
            listener = reference()
            if listener is not None:
                listener.settle_contexts()

    # What the import system asks for ------------------------------------------------------------

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Finds a module that values wait for as the other finders do, and watches its loader."""
        if name not in self._wanted:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = cast("Loader", _Watched(spec.loader, self))
                return spec
        return None


class _Watched:
    """Loads a module as its own loader does, and says so afterwards."""

    def __init__(self, loader: Loader, arrivals: Arrivals) -> None:
        self._loader = loader
        self._arrivals = arrivals

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def __getattr__(self, name: str) -> Any:
        """Whoever looks a module up without importing it may want more of its loader."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._arrivals.arrived()


# Which modules have been imported is a fact of the process.
ARRIVALS = Arrivals()
