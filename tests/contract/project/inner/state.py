"""Globals that calls change."""

from __future__ import annotations

from .. import kinds

SHELF: dict[str, int] = {}
total = 0


def put(name: str, value: int) -> None:
    global total
    SHELF[name] = value
    total += value


def clear() -> None:
    global total
    SHELF.clear()
    total = 0


def colours() -> list[kinds.Colour]:
    return list(kinds.Colour)
