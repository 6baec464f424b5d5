"""The first thing that runs in a worker process, while there is nothing else in it yet."""

from __future__ import annotations

import sys
from typing import BinaryIO


def main(lifeline: BinaryIO) -> None:
    """Runs a worker; see `wool._worker.main`."""
    _import_without_extensions()
    from wool._worker.main import main

    main(lifeline)


def _import_without_extensions() -> None:
    """Imports msgspec as where `typing_extensions` is not installed.

    It would import that just to be sure; on the Pythons that Wool runs on, `typing` has all it
    takes from there. That costs as much time as all of Wool, and 6 MiB. No other thread could miss
    it meanwhile.
    """
    if "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        del sys.modules["typing_extensions"]
