"""Pieces of code as they travel, and how they are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeUnit:
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
