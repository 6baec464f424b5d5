"""Exceptions as bytes, and back: one that ends a call has to arrive whatever is wrong with it, and
one that was thrown into a generator may come back out.

pickle would call the class with `args`, which fails for most signatures a user can think of, and
loses cause, context and traceback. Here an exception is taken apart, and its instance is made by
the `__new__` of the built-in class it derives from, without a call of `__init__`; everything it
consisted of is put in place. A class that says itself how it wants to be pickled is obeyed, and
gets cause, context, notes and traceback on top.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from types import (
    GetSetDescriptorType,
    MemberDescriptorType,
)
from typing import Any, TypeVar, cast

from wool._code.loading import find_thrown
from wool._code.names import is_built_in
from wool._code.units import MissingCode
from wool._protocol.frames import Summary
from wool._texts import repr_of
from wool._values.tracebacks import Frames, capture, rebuild, summarise
from wool.exceptions import RemoteError

P = TypeVar("P")
"""A serialized value."""

Links = tuple[
    BaseException | None,  # one further down, see `_far`
    BaseException | None,  # the cause
    BaseException | None,  # the context
    bool,  # whether the context is suppressed
    Frames | None,
]
Parts = tuple[Any, ...]
"""The result of a pickler's `reducer_override`: function, arguments, state, list items, dictionary
items, and the function that applies the state, which is always `(links, body)` here."""

ARGS, CAUSE, CONTEXT, SUPPRESS, TRACEBACK = (
    cast(GetSetDescriptorType, BaseException.__dict__[name])
    for name in ("args", "__cause__", "__context__", "__suppress_context__", "__traceback__")
)
"""The attributes that the interpreter itself uses, whatever a class has under these names."""

STRIDE = 32

Failure = Callable[[Any], BaseException | None]
"""Returns why a value cannot be pickled, None if it can."""


def reduce_exception(
    exc: BaseException, label: str | None = None, failure: Failure | None = None
) -> str | Parts:
    """Reduces an exception, for use in a pickler's `reducer_override`.

    Args:
        label: says in its traceback where it was raised; see `tracebacks.capture`.
        failure: if given, texts take the place of what cannot be pickled; if that is its class,
            `RemoteError` takes the place of all of it.
    """
    cls, links = type(exc), _links_of(exc, label)
    if failure is not None and failure(cls) is not None:
        error = summarise(exc, label).error()
        body = error.args, dict[str, Any](), vars(error)
        return make, (RemoteError,), ((*links[:-1], None), body), None, None, restore
    if _reduces_itself(cls) and (failure is None or _is_sound(exc, failure)):
        return _reduce_as_written(exc, links)
    body = ARGS.__get__(exc), _fields_of(exc), exc.__dict__.copy()
    if failure is not None:
        body = _mended(*body, failure)
    return make, (cls, *_members_of(exc)), (links, body), None, None, restore


def _mended(
    args: tuple[Any, ...], fields: dict[str, Any], attributes: dict[str, Any], failure: Failure
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Puts texts in place of what cannot be pickled, and a note that says what that is."""
    lost: dict[str, str] = {}

    def keep(name: str, value: Any) -> Any:
        if _is_exceptional(value):
            return value  # it is mended in its turn
        reason = failure(value)
        if reason is None:
            return value
        lost[name] = repr_of(reason)
        return f"<unpicklable: {repr_of(value)}>"

    args = tuple(keep(f"args[{i}]", value) for i, value in enumerate(args))
    fields = {name: keep(name, value) for name, value in fields.items()}
    attributes = {name: keep(name, value) for name, value in attributes.items()}
    if lost:
        notes = attributes.get("__notes__")
        reasons = ", ".join(f"{name!r} ({reason})" for name, reason in lost.items())
        attributes["__notes__"] = [
            *(cast("list[Any]", notes) if isinstance(notes, list) else []),
            f"Wool put a text in place of what cannot be pickled: {reasons}",
        ]
    return args, fields, attributes


def _is_exceptional(value: Any) -> bool:
    """Whether a value is an exception, or a list or tuple of nothing else."""
    if type(value) in (list, tuple):
        return bool(value) and all(isinstance(item, BaseException) for item in value)
    return isinstance(value, BaseException)


def _links_of(exc: BaseException, label: str | None) -> Links:
    frames = capture(exc.__traceback__, label)
    return _far(exc), exc.__cause__, exc.__context__, exc.__suppress_context__, frames


def _far(exc: BaseException) -> BaseException | None:
    """Returns the exception some way down a long chain; it is pickled before the nearer ones.

    The nearer ones then find their successor done already, so that the depth of the pickler's
    recursion grows with a fraction of the chain's length only.
    """
    link = exc
    for _ in range(STRIDE):
        further = link.__cause__ if link.__context__ is None else link.__context__
        if further is None:
            return None
        link = further
    return link


# Classes that say themselves how to be pickled


def _reduces_itself(cls: type[BaseException]) -> bool:
    """Whether a class has a `__reduce__` of its own that was written with its `__init__` in view.

    One that is inherited from above the latest `__init__` would call it with wrong arguments.
    """
    for base in cls.__mro__:
        names = base.__dict__
        if "__reduce_ex__" in names or "__reduce__" in names:
            return not is_built_in(base)
        if "__init__" in names and not is_built_in(base):
            return False
    return False


def _reduce_as_written(exc: BaseException, links: Any) -> str | Parts:
    """Asks the class of an exception; what it says is completed by `links` and the notes."""
    reduced: Any = exc.__reduce_ex__(5)
    if isinstance(reduced, str):
        return reduced
    func, args, state, listitems, dictitems, setter = (*reduced, *(None,) * 4)[:6]
    body = (state, setter, exc.__dict__.get("__notes__"))
    return func, args, (links, body), listitems, dictitems, restore_as_written


def _is_sound(exc: BaseException, failure: Failure) -> bool:
    """Whether all that its class says of an exception can be pickled."""
    try:
        return failure(_reduce_as_written(exc, None)) is None
    except BaseException:  # of the user's own code
        return False


def restore_as_written(exc: BaseException, state: tuple[Links, tuple[Any, ...]]) -> None:
    """Applies the state of an exception that reduced itself."""
    links, (own, setter, notes) = state
    if setter is not None:
        setter(exc, own)
    elif own is not None:
        cast(Any, exc).__setstate__(own)
    if notes is not None:
        exc.__dict__["__notes__"] = notes
    _link(exc, links)


# All other classes


def _members_of(exc: BaseException) -> tuple[()] | tuple[str, tuple[BaseException, ...]]:
    """Returns what `__new__` of a group needs: its fields cannot be set later."""
    if not isinstance(exc, BaseExceptionGroup):
        return ()
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return group.message, group.exceptions


def make(cls: type[BaseException], *args: Any) -> BaseException:
    """Makes an instance, by the `__new__` of the built-in class that it derives from."""
    base: type = cls
    while base.__flags__ & 1 << 9 and base.__base__ is not None:  # Py_TPFLAGS_HEAPTYPE
        base = base.__base__
    return base.__new__(cls, *args)


def restore(exc: BaseException, state: tuple[Links, tuple[Any, ...]]) -> None:
    """Puts everything in place, past `__setattr__` and properties of the class."""
    links, (args, fields, attributes) = state
    ARGS.__set__(exc, args)
    members = _fields(type(exc)) if fields else {}
    for name in fields.keys() & members.keys():
        with suppress(AttributeError, TypeError):  # read-only, of a class written in C
            members[name].__set__(exc, fields[name])
    exc.__dict__.update(attributes)
    _link(exc, links)


def _link(exc: BaseException, links: Links) -> None:
    _, cause, context, suppress, frames = links
    CAUSE.__set__(exc, cause)  # it also suppresses the context
    SUPPRESS.__set__(exc, suppress)
    CONTEXT.__set__(exc, context)
    TRACEBACK.__set__(exc, rebuild(frames))


# The state of an exception outside `__dict__`: slots, and the fields of built-in classes


def _fields_of(exc: BaseException) -> dict[str, Any]:
    """Returns the fields of an exception that are set.

    None means of those of OSError that they are not: once one is, messages show it. The `obj` of
    AttributeError is any object that lacked an attribute, and not meant as part of a message.
    """
    fields: dict[str, Any] = {}
    unset_if_none = vars(OSError) if isinstance(exc, OSError) else ()
    for name, member in _fields(type(exc)).items():
        with suppress(AttributeError):  # not set
            value = member.__get__(exc)
            if value is not None or name not in unset_if_none:
                fields[name] = value
    if isinstance(exc, AttributeError):
        fields.pop("obj", None)
    return fields


def _fields(cls: type) -> dict[str, MemberDescriptorType]:
    """Finds the descriptors that give access to the fields of a class."""
    members: dict[str, MemberDescriptorType] = {}
    for owner in cls.__mro__:
        if owner not in (BaseExceptionGroup, BaseException):  # theirs need more than to be set
            for name, member in vars(owner).items():
                if isinstance(member, MemberDescriptorType):
                    members.setdefault(name, member)
    return members


# The exception that ends a call ------------------------------------------------------------------


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
