"""The memory that this process has, and the limit on it."""

from __future__ import annotations

import asyncio
import os

from wool.exceptions import ConfigurationError

LOOK = 0.1
"""Seconds between two looks at what is used."""

OVER_LIMIT = 99
"""The exit code of a worker that has used too much. It stays below those by which shells tell of
signals."""


def resident() -> int:
    """Returns the resident memory in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def watch_memory(limit: int) -> None:
    """Ends this process once it uses more memory, before the system ends any; on a running loop.

    At once: to clean up takes memory.

    Raises:
        ConfigurationError: the system does not tell what is used.
    """
    used = resident()
    if not used:
        raise ConfigurationError("memory_limit has no effect on this system: leave it out")
    if used > limit:
        os._exit(OVER_LIMIT)
    asyncio.get_running_loop().call_later(LOOK, watch_memory, limit)
