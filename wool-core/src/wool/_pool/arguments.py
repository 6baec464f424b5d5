"""Checks of what `WorkerPool` is told."""

from __future__ import annotations

import os
from typing import Any

from wool._security.credentials import Credentials
from wool._settings.model import Core
from wool.exceptions import ConfigurationError


def checked_size(core: Core, discovering: bool) -> int:
    """Returns how many workers a pool starts.

    Raises:
        ConfigurationError: it would have none, and find none.
    """
    if core.size is None:
        return 0 if discovering else _cpus()
    if core.size == 0 and not discovering:
        raise ConfigurationError(
            "size=0 leaves the pool without workers: give it a size, or a discovery that finds "
            "workers elsewhere"
        )
    return core.size


def _cpus() -> int:
    """Returns how many CPUs this process may use, where the system tells that."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_credentials(credentials: Any) -> Credentials | None:
    """Returns credentials, or raises ConfigurationError for anything else."""
    if credentials is not None and not isinstance(credentials, Credentials):
        raise ConfigurationError(
            "credentials must be made with wool.Credentials.token(…) or wool.Credentials.tls(…), "
            f"not {type(credentials).__name__}"
        )
    return credentials


def positive(name: str, value: Any) -> int | None:
    """Returns a positive number or None, or raises ConfigurationError that names the argument."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{name} must be a positive whole number, not {value!r}")
    return value
