"""Discovery `shm`: processes of one machine and user find each other through shared memory.

This module is light; the discovery itself is imported when it is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wool.abc import Discovery
from wool.exceptions import ConfigurationError
from wool.plugins import API, DiscoveryPlugin, hookimpl

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the discovery."""

    namespace: Annotated[
        str, "Any text; processes find those that have the same, and no others."
    ] = "default"
    directory: Annotated[
        Path | None,
        "Where the processes meet; by default /dev/shm or, where there is none, the temporary "
        "directory.",
    ] = None


@hookimpl
def wool_discoveries() -> Iterable[DiscoveryPlugin]:
    """Registers the discovery."""
    yield DiscoveryPlugin(
        name="shm",
        api=API,
        options=Options,
        factory=_make,
        capabilities=frozenset({"local"}),
    )


def _make(options: Options) -> Discovery:
    if os.name != "posix":
        raise ConfigurationError(
            "The discovery 'shm' needs Linux or macOS; choose another one, such as 'zeroconf'"
        )
    from wool_shm._discovery import ShmDiscovery  # imports asyncio and msgspec

    return ShmDiscovery(options)
