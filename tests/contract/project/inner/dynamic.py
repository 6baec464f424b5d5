"""Imported by a name that is put together at run time."""

from __future__ import annotations

ANSWER = 42
