"""What an exception keeps outside `__dict__`: slots, and the fields of built-in classes."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, cast

from wool._serialization.modules import is_built_in

MAX_OBJ = 64 * 1024


def fields_of(exc: BaseException) -> dict[str, Any]:
    """Returns the fields of an exception that are set."""
    fields: dict[str, Any] = {}
    for name, (owner, member) in _members(type(exc)).items():
        try:
            value = member.__get__(exc)
        except AttributeError:  # not set
            continue
        if not _is_absent(owner, value) and not _is_in_the_way(owner, name, value):
            fields[name] = value
    return fields


def set_fields(exc: BaseException, fields: dict[str, Any]) -> None:
    """Sets fields, past properties and `__setattr__` of the class."""
    members = _members(type(exc))
    for name in fields.keys() & members.keys():
        with suppress(AttributeError, TypeError):  # read-only, of a class written in C
            members[name][1].__set__(exc, fields[name])


def is_slot(cls: type, name: str) -> bool:
    """Whether a field comes from a class that is not built in."""
    return not is_built_in(_members(cls)[name][0])


def _members(cls: type) -> dict[str, tuple[type, Any]]:
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


def _is_absent(owner: type, value: Any) -> bool:
    """Whether None means that a field is not set. Once it is set, OSError shows it in messages;
    the value of StopIteration, on the other hand, must be set.
    """
    return value is None and owner is OSError


def _is_in_the_way(owner: type, name: str, value: Any) -> bool:
    """Whether a field is the `obj` of an AttributeError and cannot travel, or is large.

    It is whatever object lacked an attribute, and was not meant as part of a message: CPython
    leaves it out of pickles. What is small travels, since suggestions are made from it.
    """
    if owner is not AttributeError or name != "obj" or value is None:
        return False
    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

    try:
        cast(Any, cloudpickle).Pickler(_Bounded(), 5).dump(value)
    except BaseException:  # pickling runs any code of the user's
        return True
    return False


class _Bounded(BytesIO):
    """Refuses to become large."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > MAX_OBJ:
            raise ValueError
        return super().write(data)
