"""Imports msgspec without typing_extensions; packages that use it import this module first.

msgspec would import that, where it is installed, only to take from it what `typing` has on all
Pythons that Wool runs on. It costs 40 ms and 6 MiB, as much as all of Wool.

Records are structs of msgspec, not dataclasses: each of those takes half a millisecond of every
start to be made, and Wool has forty. Types that others make or take apart are dataclasses: options,
those of `wool.abc` and `wool.plugins`, and `WorkerInfo`.
"""

from __future__ import annotations

import sys

__all__ = ["Struct"]

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

from msgspec import Struct  # noqa: E402
