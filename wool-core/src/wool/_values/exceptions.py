"""The exception that ends a call, which has to arrive whatever is wrong with it; and one that was
thrown into a generator and comes back out.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

from wool._code.loading import find_thrown
from wool._code.units import MissingCode
from wool._protocol.frames import Summary
from wool._values.reduction import CAUSE, CONTEXT, SUPPRESS, TRACEBACK
from wool._values.tracebacks import capture, rebuild, summarise
from wool.exceptions import RemoteError

P = TypeVar("P")
"""A serialized value."""


def dump_exception(
    exc: BaseException, dumps: Callable[[Any, bool], P], label: str | None = None
) -> tuple[Summary, P | None]:
    """Serializes an exception, whatever it is, without changing it. Never raises.

    Args:
        dumps: a serializer that raises if a class in the value cannot travel. It is told whether
            its reducer is to mend exceptions, see `reduce_exception`.
        label: says where the exception was raised, as `process_label()` does.

    Returns:
        A description for the case that the other side cannot load the exception, and the
        exception; None if nothing of it can be serialized.
    """
    summary = summarise(exc, label)
    for mend in (False, True):
        try:
            return summary, dumps(exc, mend)
        except BaseException:  # reducing runs the user's code, which may even raise SystemExit
            continue
    return summary, None


def load_exception(summary: Summary, payload: P | None, loads: Callable[[P], Any]) -> BaseException:
    """Rebuilds an exception, or returns a `RemoteError` with the reason as its cause.

    Raises:
        MissingCode: code that it mentions is not here.
    """
    if not payload:
        return summary.error()
    try:
        loaded = loads(payload)
    except MissingCode:
        raise
    except BaseException as error:  # rebuilding runs the user's code too
        return _caused(summary.error(), error)
    if isinstance(loaded, BaseException):
        return loaded
    reason = TypeError(f"rebuilding it made an object of type {type(loaded).__qualname__}")
    return _caused(summary.error(), reason)


def _caused(error: RemoteError, reason: BaseException) -> RemoteError:
    error.__cause__ = reason
    return error


# Exceptions thrown in that come back out ----------------------------------------------------------

_LINKS = {"cause": CAUSE, "suppress": SUPPRESS, "context": CONTEXT}  # the first changes the second


class Thrown:
    """An exception that was thrown in by the peer, and how it came.

    The peer has the object itself, and gets that again. The changes that raising it and
    `add_note` have made go back, and are made to that object.

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
        """Reduces it for its sender, for use in a pickler's `reducer_override`."""
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
