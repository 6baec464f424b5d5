"""Globals of functions that travel by value.

All functions of one module of one process share one namespace on a worker, as they do at home: what
one sets there, another sees, whichever call it was that brought them. A global that was sent is set
only once, so that it does not undo what happened on the worker since; it is set anew when its
owner has bound it to another object, which the version that travels with it tells.

Two modules may have had one name, as when a script is run again in the same process. So what tells
namespaces apart is a mark among the globals themselves.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from wool._code.identity import IDENTITIES
from wool._code.loading import find_globals, find_namespace, make_globals
from wool._code.modules import Modules

_MARK = "__wool_namespace__"

_BASE = ("__package__", "__name__", "__path__", "__file__")

Globals = dict[str, Any]

RECENT = 256
"""So many namespaces are kept although no function that is here has them."""


class Namespace:
    """A namespace that came from elsewhere.

    Attributes:
        owner: the process it is a copy of.
        module: what it is called there.
        scope: the globals.
    """

    def __init__(self, owner: bytes, module: str, scope: Globals) -> None:
        self.owner = owner
        self.module = module
        self.scope = scope
        self.versions: dict[str, int] = {}

    def version(self, name: str, value: Any) -> int:
        """Returns the version of what a global was last sent as."""
        return self.versions.get(name, 0)


class Home:
    """A namespace of this process, as it is called elsewhere.

    Attributes:
        module: what it is called.
        scope: the globals.
    """

    def __init__(self, module: str, scope: Globals) -> None:
        self.module = module
        self.scope = scope
        self._bindings: dict[str, tuple[Any, int]] = {}

    @property
    def owner(self) -> bytes:
        """This process, which after a fork is another one."""
        return IDENTITIES.process

    def version(self, name: str, value: Any) -> int:
        """Returns the version of what a global is bound to now; a new object has a new one."""
        with IDENTITIES.lock:
            known, version = self._bindings.get(name, (None, 0))
            if known is not value or not version:
                version += 1
                self._bindings[name] = value, version
            return version

    def __reduce__(self) -> tuple[Any, ...]:
        """Somebody takes a copy of the globals along, which are another namespace."""
        return type(None), ()


class Homes:
    """The namespaces of one process that have been sent."""

    def __init__(self) -> None:
        self._homes: weakref.WeakValueDictionary[str, Home] = weakref.WeakValueDictionary()
        self._counts: dict[str, int] = {}  # of those that had the name of one module

    def find(self, module: str) -> Globals | None:
        """Returns the globals that are called so, if they are still in use."""
        home = self._homes.get(module)
        return None if home is None else home.scope

    def of(self, scope: Globals) -> Home | Namespace:
        """Returns what is known of some globals; marks those that are not yet known."""
        known = scope.get(_MARK)
        if isinstance(known, (Home, Namespace)) and known.scope is scope:
            return known
        with IDENTITIES.lock:
            name = str(scope.get("__name__"))
            count = self._counts[name] = self._counts.get(name, 0) + 1
            home = Home(name if count == 1 else f"{name} {count}", scope)
            scope[_MARK] = self._homes[home.module] = home
            return home


# As the table of classes.
HOMES = Homes()


class Namespaces:
    """The namespaces of one receiver.

    Args:
        builtins: what functions find under built-in names.
    """

    def __init__(self, builtins: Globals) -> None:
        self._builtins = builtins
        self._known: weakref.WeakValueDictionary[tuple[bytes, str], Namespace] = (
            weakref.WeakValueDictionary()
        )
        self._recent: OrderedDict[tuple[bytes, str], Namespace] = OrderedDict()

    def find(self, owner: bytes, module: str, base: Globals) -> Globals:
        """Returns the globals for functions of a module of another process."""
        home = HOMES.find(module) if owner == IDENTITIES.process else None
        if home is not None:
            return home  # they have come there
        key = owner, module
        known = self._known.get(key)
        if known is None:
            scope = dict(base)
            known = scope[_MARK] = self._known[key] = Namespace(owner, module, scope)
            scope["__builtins__"] = self._builtins
        self._recent[key] = known
        self._recent.move_to_end(key)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return known.scope


class Scope:
    """Stands for the globals of a function while it is pickled.

    Args:
        made: names what makes them, and what of.
        known: what is known of them, if they are shared.

    Attributes:
        defined: names of globals that need not be sent.
    """

    def __init__(
        self,
        made: tuple[Callable[..., Globals], tuple[Any, ...]],
        known: Home | Namespace | None = None,
        defined: frozenset[str] = frozenset(),
    ) -> None:
        self.defined = defined
        self._made = made
        self._known = known

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made

    def versions(self, values: Globals) -> dict[str, int]:
        """Returns the versions of globals that are shared."""
        known = self._known
        return {} if known is None else {n: known.version(n, v) for n, v in values.items()}


def shared_scope(scope: Globals, modules: Modules) -> Scope:
    """Returns what stands for globals that all functions of a module have together."""
    module = modules.name(scope)
    if module is not None:  # it travels as a whole
        return Scope((find_globals, (module,)), defined=modules.defined(module))
    known = HOMES.of(scope)
    return Scope((find_namespace, (known.owner, known.module, _base(scope))), known)


def copied_scope(scope: Globals) -> Scope:
    """Returns what stands for globals of which the functions in one value have a copy."""
    return Scope((make_globals, (_base(scope),)))


def _base(scope: Globals) -> Globals:
    """Returns what import statements look at."""
    return {name: scope[name] for name in _BASE if name in scope}


def set_globals(scope: Globals, values: Globals, versions: dict[str, int]) -> None:
    """Sets globals that came with a function, unless they are there in the same version."""
    came = scope.get(_MARK)
    if not isinstance(came, Namespace):
        # It is a copy, at home, or where its module is: nothing there changes.
        for name, value in values.items():
            scope.setdefault(name, value)
        return
    for name, value in values.items():
        if name not in scope or versions[name] > came.versions.get(name, 0):
            scope[name] = value
            came.versions[name] = versions[name]
