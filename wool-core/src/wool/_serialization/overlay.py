"""What `sys.modules` shows of modules that were sent to this worker.

Each pool that calls has its own modules here, perhaps other versions under the same names, and what
travels imports them without `sys.modules`. But much of Python asks that for the module of a class,
dataclasses for one, and `importlib.import_module` asks nothing else. So it shows the modules of
that pool whose call began last. What this process has under a name by itself is never hidden.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Protocol


class Layer(Protocol):
    """The modules of one pool."""

    def imported(self) -> dict[str, ModuleType]:
        """Returns those that have been imported, or are being."""
        ...

    def spec(self, name: str) -> ModuleSpec | None:
        """Imports a module for the import system, if it is one of them."""
        ...


class Overlay:
    """Lays the modules of one pool at a time over `sys.modules`.

    Attributes:
        layer: what is shown, if anything is.
    """

    def __init__(self) -> None:
        self.layer: Layer | None = None
        self._lock = threading.RLock()
        self._shown: dict[str, ModuleType] = {}

    def show(self, layer: Layer | None) -> None:
        """Shows a layer instead of the one that was shown; None shows none."""
        if self.layer is layer:
            return
        with self._lock:
            for name in list(self._shown):
                self.hide(name)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            self.layer = layer
            if layer is not None:
                sys.meta_path.append(self)
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

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        return None if self.layer is None else self.layer.spec(fullname)


# `sys.modules` is a fact of the process, so what it shows is too.
OVERLAY = Overlay()
