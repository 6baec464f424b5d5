"""Imported by functions only."""

from __future__ import annotations

from ..kinds import Point


def shift(point: Point) -> Point:
    return Point(point.x + 1, point.y)
