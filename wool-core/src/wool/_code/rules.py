"""Which modules travel with the calls that need them, and which only their names.

Workers that a pool has started itself import what it imports. Others, which were there before, may
lack the modules of the caller's own project, or have older ones. So those travel: modules outside
of the standard library and of the folders that distributions are installed into.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.machinery import ModuleSpec

from msgspec import Struct

OUR_OWN = frozenset({"wool", "wool_grpc", "wool_shm", "wool_ws", "wool_zeroconf"})
"""Every worker has these, and has to have them installed."""

INSTALLED = frozenset({"site-packages", "dist-packages"})


class Rules(Struct, frozen=True):
    """Which modules a pool sends to its workers, and which it never does.

    Attributes:
        travels: whether there may be workers that lack modules of the caller.
        ship, by_reference: names of modules that travel, or do not, whatever their place. A
            package stands for all that is in it, unless more is said of that.
    """

    travels: bool = False
    ship: tuple[str, ...] = ()
    by_reference: tuple[str, ...] = ()

    def decided(self, name: str) -> bool | None:
        """Returns whether a module travels if that has been said; else None."""
        while name:
            if name in self.ship:
                return True
            if name in self.by_reference:
                return False
            name = name.rpartition(".")[0]
        return None


def is_own(spec: ModuleSpec) -> bool:
    """Whether a module is the user's own by the place that it was found in."""
    name = spec.name.partition(".")[0]
    if name in OUR_OWN or name in sys.stdlib_module_names:
        return False
    if spec.origin is None:  # a package without `__init__.py`
        return any(not is_installed(place) for place in spec.submodule_search_locations or ())
    return spec.has_location and not is_installed(spec.origin)


def is_installed(place: str) -> bool:
    """Whether a file is part of Python or of an installed distribution.

    An editable installation is not.
    """
    path = _normal(place)
    return not INSTALLED.isdisjoint(path.split(os.sep)) or _is_python(os.path.dirname(path))


def _normal(path: str) -> str:
    return os.path.normcase(os.path.normpath(path))


@cache
def _is_python(folder: str) -> bool:
    return os.path.join(folder, "").startswith(_places())


@cache
def _places() -> tuple[str, ...]:
    import site
    import sysconfig

    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {sysconfig.get_path(kind) for kind in kinds}
    known = {*found, site.getusersitepackages()} - {None, ""}
    return tuple(os.path.join(_normal(place), "") for place in known)


def find_spec(name: str) -> ModuleSpec | None:
    """Finds a module without importing anything; None if there is none, or it is an extension."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__spec__", None)
    parent, _, _ = name.rpartition(".")
    path: Iterable[str] | None = None
    if parent:
        above = find_spec(parent)
        path = None if above is None else above.submodule_search_locations
        if path is None:
            return None
    return ask_finders(name, path)


def ask_finders(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    """Asks the import system for a module, in the folders of the package around it."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path if path is None else list(path))
        except KeyError:  # a package without `__init__.py` in one that has not been imported
            spec = _namespace(name, path or ())
        except (ImportError, AttributeError, OSError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def _namespace(name: str, path: Iterable[str]) -> ModuleSpec | None:
    """Returns the spec of a package without `__init__.py`, None if it has no folder.

    The one that Python makes follows the path of the package around it, among what is imported.
    """
    last = name.rpartition(".")[2]
    folders = list(filter(os.path.isdir, (os.path.join(place, last) for place in path)))
    if not folders:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = folders
    return spec


def all_within(name: str) -> Iterable[str]:
    """Yields the names of a module and, if it is a package, of all that is in it."""
    yield name
    spec = find_spec(name)
    folders = None if spec is None else spec.submodule_search_locations
    import pkgutil

    for inner in pkgutil.iter_modules(list(folders or ())):
        yield from all_within(f"{name}.{inner.name}")
