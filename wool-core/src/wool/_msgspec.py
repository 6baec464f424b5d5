"""Imports msgspec without typing_extensions; packages that use it import this module first.

msgspec would import that, where it is installed, only to take from it what `typing` has on all
Pythons that Wool runs on. It costs 40 ms and 6 MiB, as much as all of Wool.
"""

from __future__ import annotations

import sys

_NAME = "typing_extensions"


def _import() -> None:
    if _NAME in sys.modules or len(sys._current_frames()) > 1:
        return  # another thread might import it meanwhile
    sys.modules[_NAME] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        del sys.modules[_NAME]


_import()
