"""A module that only some routines import, when they run."""

from contextvars import ContextVar
from typing import Any

late: ContextVar[Any] = ContextVar("late", default="default")
