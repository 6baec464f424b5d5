"""Takes an exception apart for pickling, and puts it together again without calling `__init__`.

pickle would call the class with `args`, which fails for most signatures a user can think of, and
loses cause, context and traceback. Here the instance is made by the `__new__` of the built-in
class it derives from, and everything it consisted of is put in place. A class that says itself
how it wants to be pickled is obeyed, and gets cause, context, notes and traceback on top.
"""

from __future__ import annotations

from contextlib import suppress
from types import (
    GetSetDescriptorType,
    MemberDescriptorType,
)
from typing import Any, cast

from wool._code.names import is_built_in
from wool._values.tracebacks import Frames, capture, rebuild

Links = tuple[
    BaseException | None,  # one further down, see `_far`
    BaseException | None,  # the cause
    BaseException | None,  # the context
    bool,  # whether the context is suppressed
    Frames | None,
]
Parts = tuple[Any, ...]
"""What a pickler's `reducer_override` returns: function, arguments, state, list items, dictionary
items, and the function that applies the state, which is always `(links, body)` here."""

ARGS, CAUSE, CONTEXT, SUPPRESS, TRACEBACK = (
    cast(GetSetDescriptorType, BaseException.__dict__[name])
    for name in ("args", "__cause__", "__context__", "__suppress_context__", "__traceback__")
)
"""The attributes that the interpreter itself uses, whatever a class has under these names."""

STRIDE = 32


def reduce_exception(exc: BaseException, label: str | None = None) -> str | Parts:
    """Reduces an exception, for use in a pickler's `reducer_override`.

    Args:
        label: says in its traceback where it was raised; see `tracebacks.capture`.
    """
    if reduces_itself(type(exc)):
        return reduce_as_written(exc, links_of(exc, label))
    body = ARGS.__get__(exc), fields_of(exc), dict(exc.__dict__) or None
    made = make, (type(exc), *members_of(exc))
    return *made, (links_of(exc, label), body), None, None, restore


def links_of(exc: BaseException, label: str | None) -> Links:
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


def reduces_itself(cls: type[BaseException]) -> bool:
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


def reduce_as_written(exc: BaseException, links: Any) -> str | Parts:
    """Asks the class of an exception; what it says is completed by `links` and the notes."""
    reduced: Any = exc.__reduce_ex__(5)
    if isinstance(reduced, str):
        return reduced
    func, args, state, listitems, dictitems, setter = (*reduced, *(None,) * 4)[:6]
    body = (state, setter, exc.__dict__.get("__notes__"))
    return func, args, (links, body), listitems, dictitems, restore_as_written


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


def members_of(exc: BaseException) -> tuple[()] | tuple[str, tuple[BaseException, ...]]:
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
    if fields:
        set_fields(exc, fields)
    if attributes:
        exc.__dict__.update(attributes)
    _link(exc, links)


def _link(exc: BaseException, links: Links) -> None:
    _, cause, context, suppress, frames = links
    CAUSE.__set__(exc, cause)  # which also suppresses the context
    SUPPRESS.__set__(exc, suppress)
    CONTEXT.__set__(exc, context)
    TRACEBACK.__set__(exc, rebuild(frames))


# What an exception keeps outside `__dict__`: slots, and the fields of built-in classes


def fields_of(exc: BaseException) -> dict[str, Any]:
    """Returns the fields of an exception that are set."""
    fields: dict[str, Any] = {}
    for name, (owner, member) in _fields(type(exc)).items():
        try:
            value = member.__get__(exc)
        except AttributeError:  # not set
            continue
        if not _is_absent(owner, name, value):
            fields[name] = value
    return fields


def set_fields(exc: BaseException, fields: dict[str, Any]) -> None:
    """Sets fields, past properties and `__setattr__` of the class."""
    members = _fields(type(exc))
    for name in fields.keys() & members.keys():
        with suppress(AttributeError, TypeError):  # read-only, of a class written in C
            members[name][1].__set__(exc, fields[name])


def _fields(cls: type) -> dict[str, tuple[type, Any]]:
    """Finds the descriptors that give access to the fields of a class, and who has them."""
    members: dict[str, tuple[type, Any]] = {}
    for owner in cls.__mro__:
        if owner in (BaseExceptionGroup, BaseException):
            continue  # theirs need more than to be set
        for name, member in owner.__dict__.items():
            if isinstance(member, MemberDescriptorType) or _is_computed(owner, member):
                members.setdefault(name, (owner, member))
    return members


def _is_computed(owner: type, member: Any) -> bool:
    """Whether this is `OSError.characters_written`; the others are plain members."""
    return owner is OSError and isinstance(member, GetSetDescriptorType)


def _is_absent(owner: type, name: str, value: Any) -> bool:
    """Whether a field does not travel.

    None means of OSError that it is not set: once it is, messages show it. The `obj` of
    AttributeError is any object that lacked an attribute, and not meant as part of a message.
    """
    return (owner is OSError and value is None) or (owner is AttributeError and name == "obj")
