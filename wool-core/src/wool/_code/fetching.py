"""Rebuilding what has arrived, when code that it takes may not be here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from wool._code.units import MissingCode

T = TypeVar("T")

Fetch = Callable[[Sequence[bytes]], Awaitable[None]]
"""Has those send code who have it; raises `SerializationError` if nobody has."""


async def rebuild(
    make: Callable[..., T],
    *args: Any,
    fetch: Fetch,
    explain: Callable[[Exception], Exception] | None = None,
) -> T:
    """Makes something of what has arrived, fetching what code is missing.

    Args:
        make: makes it from `args`.
        explain: makes the error to raise of one that `make` raises; None raises that one. What
            `fetch` raises needs no explanation.
    """
    while True:
        try:
            return make(*args)
        except MissingCode as missing:
            await fetch([missing.key])
        except Exception as error:
            if explain is None:
                raise
            raise explain(error) from error
