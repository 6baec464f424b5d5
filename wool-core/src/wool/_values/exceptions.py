"""How an exception crosses a process boundary: as itself, or as much of it as can be.

`reduce_mended` is what a pickler calls for every exception that it meets, wherever it is in a
value, once pickling them as they are has failed. `dump_exception` and `load_exception` are for the
exception that ends a call, which has to arrive whatever is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, TypeVar, cast

import msgspec

from wool._code.loading import find_thrown
from wool._texts import clean, message_of, name_of, repr_of, tried
from wool._values.reduction import (
    ARGS,
    CAUSE,
    CONTEXT,
    SUPPRESS,
    TRACEBACK,
    Parts,
    fields_of,
    links_of,
    make,
    members_of,
    reduce_as_written,
    reduces_itself,
    restore,
)
from wool._values.tracebacks import capture, rebuild
from wool.exceptions import RemoteError

P = TypeVar("P")
"""A serialized value."""

Failure = Callable[[Any], BaseException | None]
"""Returns why a value cannot be pickled, None if it can."""

MAX_EXCEPTIONS = 10
"""So many causes and members are described, not counting the exception itself."""


def dump_exception(
    exc: BaseException, dumps: Callable[[Any, bool], P], label: str | None = None
) -> tuple[Summary, P | None]:
    """Serializes an exception, whatever it is, without changing it. Never raises.

    Args:
        dumps: a serializer that raises if a class in the value cannot travel. It is told whether
            its reducer is to call `reduce_mended` for exceptions.
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


def load_exception(
    summary: Summary,
    payload: P | None,
    loads: Callable[[P], Any],
    passing: tuple[type[BaseException], ...] = (),
) -> BaseException:
    """Rebuilds an exception, or returns a `RemoteError` with the reason as its cause.

    Args:
        passing: errors of `loads` that are the caller's business, and are raised.
    """
    if payload is None:
        return summary.error()
    try:
        loaded = loads(payload)
    except passing:
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


# What cannot be pickled ---------------------------------------------------------------------------


def reduce_mended(exc: BaseException, label: str | None, failure: Failure) -> Parts:
    """Reduces an exception with texts in place of what cannot be pickled.

    If its class cannot travel, that is all of it: `RemoteError` takes its place.
    """
    links = links_of(exc, label)
    if failure(type(exc)) is not None:
        error = summarise(exc, label).error()
        body = error.args, None, vars(error)
        return make, (RemoteError,), ((*links[:-1], None), body), None, None, restore
    written = _as_written(exc, links, failure) if reduces_itself(type(exc)) else None
    if written is not None:
        return written
    lost: dict[str, str] = {}

    def keep(name: str, value: Any) -> Any:
        if _is_exceptional(value):
            return value  # it is mended in its turn
        reason = failure(value)
        if reason is None:
            return value
        lost[name] = repr_of(reason)
        return f"<unpicklable: {repr_of(value)}>"

    arguments = tuple(keep(f"args[{i}]", value) for i, value in enumerate(ARGS.__get__(exc)))
    fields = {name: keep(name, value) for name, value in fields_of(exc).items()}
    attributes = {name: keep(name, value) for name, value in exc.__dict__.items()}
    if lost:
        notes = attributes.get("__notes__")
        reasons = ", ".join(f"{name!r} ({reason})" for name, reason in lost.items())
        attributes["__notes__"] = [
            *(cast("list[Any]", notes) if isinstance(notes, list) else []),
            f"Wool put a text in place of what cannot be pickled: {reasons}",
        ]
    body = arguments, fields, attributes
    return make, (type(exc), *members_of(exc)), (links, body), None, None, restore


def _as_written(exc: BaseException, links: Any, failure: Failure) -> Parts | None:
    """Asks a class that reduces itself; returns None if that does not work."""
    try:
        func, args, (_, body), *rest = cast(Parts, reduce_as_written(exc, None))
    except BaseException:  # of the user's own code
        return None
    return None if failure((func, args, body, rest)) else (func, args, (links, body), *rest)


def _is_exceptional(value: Any) -> bool:
    """Whether a value is an exception, or a list or tuple of nothing else."""
    if type(value) in (list, tuple):
        return bool(value) and all(isinstance(item, BaseException) for item in value)
    return isinstance(value, BaseException)


# What can be said of any exception ----------------------------------------------------------------


class Summary(msgspec.Struct, frozen=True):
    """Describes an exception. The strings can be encoded as UTF-8.

    Attributes:
        type_name: module and qualified name of its class.
        message: its `str()`.
        traceback: its traceback as text, with those of its causes, in Wool's own formatting.
    """

    type_name: str
    message: str
    traceback: str

    @property
    def texts(self) -> list[str]:
        """The attributes, in this order."""
        return [self.type_name, self.message, self.traceback]

    def error(self) -> RemoteError:
        """Makes the exception that stands for the one described."""
        return RemoteError(*self.texts)


def summarise(exc: BaseException, label: str | None = None) -> Summary:
    """Describes an exception. Never raises, and never calls `repr` of an exception."""
    text = tried(lambda: "".join(_lines(exc, label, set())), "")
    return Summary(name_of(type(exc)), message_of(exc), clean(text))


def _lines(exc: BaseException, label: str | None, seen: set[int]) -> Iterator[str]:
    """Yields the text of an exception with its causes; each once, and only so many."""
    name = name_of(type(exc)).removeprefix("builtins.")
    if id(exc) in seen or len(seen) > MAX_EXCEPTIONS:
        yield f"... {name}\n"
        return
    seen.add(id(exc))
    if exc.__cause__ is not None:
        yield from _lines(exc.__cause__, label, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n\n"
    elif exc.__context__ is not None and not exc.__suppress_context__:
        yield from _lines(exc.__context__, label, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    frames = capture(exc.__traceback__, label)
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        for filename, lineno, function, line, *_ in frames:
            yield f'  File "{filename}", line {lineno}, in {function}\n'
            if line is not None:
                yield f"    {line.strip()}\n"
    message = message_of(exc)
    yield f"{name}: {message}\n" if message else f"{name}\n"
    if isinstance(exc, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[Any]", exc).exceptions
        for number, member in enumerate(members, 1):
            yield f"  +---------------- {number} ----------------\n"
            for text in _lines(member, label, seen):
                yield from (f"  | {line}\n" for line in text.splitlines())


# What was thrown in and comes back out ------------------------------------------------------------

_LINKS = {"cause": CAUSE, "suppress": SUPPRESS, "context": CONTEXT}  # the first changes the second


class Thrown:
    """An exception that was thrown in by the peer, and how it came.

    The peer has the object itself, and gets that again. What goes back is what raising it and
    `add_note` have changed, and is done to that object.

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
