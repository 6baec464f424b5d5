"""Things that pickle themselves by name; nothing else of this module is used."""

from __future__ import annotations

import functools


class Only:
    def __reduce__(self) -> str:
        return "ONLY"


ONLY = Only()


@functools.lru_cache
def cached(x: int) -> int:
    return x + 100
