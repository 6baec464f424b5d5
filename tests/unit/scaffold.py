"""Plug-ins that `wool plugin new` writes, as modules: sound ones, of which broken ones are made."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wool.cli.plugin import write


def scaffold(kind: str, name: str) -> Any:
    """Returns the module of a new plug-in that has the back-end of a name."""
    if find_spec(f"wool_{name}") is None:  # else another process, which has started this, has it
        folder = Path(tempfile.mkdtemp(prefix="wool-scaffold-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        write(kind, name, folder)
        sys.path.append(str(folder / "src"))
    import_module(f"wool_{name}")  # a module may be asked for before those that it imports
    return import_module(f"wool_{name}._{kind}")
