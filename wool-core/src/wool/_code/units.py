"""Pieces of code as they travel, and how those that are missing are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct


class CodeUnit(Struct, frozen=True):
    """A piece of code as it travels.

    Attributes:
        key: names it.
        data: the pickle of a function or class, or the source of a module.
        provides: keys of the classes that loading it makes known, or the one of the module.
    """

    key: bytes
    data: bytes
    provides: tuple[bytes, ...] = ()


class MissingCode(Exception):
    """A payload names code that is not here; `key` says which."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


def digest(data: bytes) -> bytes:
    """Returns the key of a piece of code that is known by what it says."""
    return hashlib.blake2b(data, digest_size=16).digest()


T = TypeVar("T")

Fetch = Callable[[Sequence[bytes]], Awaitable[None]]
"""Has those send code who have it; raises `SerializationError` if nobody has."""


async def rebuild(make: Callable[..., T], *args: Any, fetch: Fetch) -> T:
    """Makes something of what has arrived, fetching what code is missing.

    Args:
        make: makes it from `args`.
    """
    while True:
        try:
            return make(*args)
        except MissingCode as missing:
            await fetch([missing.key])
