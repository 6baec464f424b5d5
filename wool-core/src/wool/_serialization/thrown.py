"""An exception that was thrown in, and what has become of it when it comes back out.

Whoever threw it has the object itself, and gets that again. What goes back is what raising it and
`add_note` have changed, and is done to that object.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from wool._serialization.classes import find_thrown
from wool._serialization.reduction import CAUSE, CONTEXT, SUPPRESS, TRACEBACK
from wool._serialization.tracebacks import capture, rebuild

_LINKS = {"cause": CAUSE, "suppress": SUPPRESS, "context": CONTEXT}  # the first changes the second


class Thrown:
    """An exception from elsewhere, and how it came.

    Attributes:
        exception: as it is here.
    """

    __slots__ = ("_notes", "_state", "_traceback", "exception")

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException = exception
        self._state = {name: link.__get__(exception) for name, link in _LINKS.items()}
        self._notes = _notes(exception)
        self._traceback = exception.__traceback__

    def changes(self) -> dict[str, Any]:
        """Returns what is not as it came; its traceback apart, which has grown."""
        exc, changes = self.exception, dict[str, Any]()
        for name, link in _LINKS.items():
            value = link.__get__(exc)
            if value is not self._state[name] or (name == "suppress" and "cause" in changes):
                changes[name] = value
        if (notes := _notes(exc)) != self._notes:
            changes["notes"] = notes
        return changes

    def reduce(self, label: str | None) -> tuple[Any, ...]:
        """Reduces it for the one who threw it, for use in a pickler's `reducer_override`."""
        exc, changes = self.exception, self.changes()
        if frames := capture(exc.__traceback__, label, self._traceback):
            changes["frames"] = frames
        return find_thrown, (), changes or None, None, None, change


def change(exc: BaseException, changes: dict[str, Any]) -> None:
    """Does to the original what has been done to the exception elsewhere."""
    for name, link in _LINKS.items():
        if name in changes:
            link.__set__(exc, changes[name])
    if "notes" in changes:
        exc.__dict__["__notes__"] = changes["notes"]
    if "frames" in changes:
        TRACEBACK.__set__(exc, rebuild(changes["frames"], exc.__traceback__))


def _notes(exc: BaseException) -> Any:
    """Returns a copy of the notes: the list is added to."""
    return copy(exc.__dict__.get("__notes__"))
