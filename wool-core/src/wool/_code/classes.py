"""Classes that travel by value: what they consist of, and how they are made of that again.

A class is made first without those parts of its body that may lead back to it. So the
`__init_subclass__` of its bases and the `__new__` of its metaclass find names, numbers and the like
there, nothing else, nor the keywords that came with the definition. An `Enum` is made with its
members, of their values. A class that refuses that makes a clear error.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, member
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple, TypedDict, cast, is_typeddict

from wool._code.functions import annotations_of
from wool._code.identity import IDENTITIES
from wool._texts import reason_of
from wool.exceptions import SerializationError

_MEMBERS = "__wool_members__"
"""Names in the body of an `Enum` the attributes of its members."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})

_EARLY = frozenset({"__firstlineno__", "__slots__"})
"""Attributes that a class has to be made with."""

_MADE_ANEW = frozenset({"_abc_impl", "__annotate_func__", "__annotations_cache__"})
"""Attributes that no class takes from another one."""

_OF_ENUM = frozenset(
    {
        "_generate_next_value_",
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
    }
)
_OF_MEMBER = frozenset({"_name_", "_value_", "_sort_order_", "__objclass__", "_inverted_"})
"""Attributes of an `Enum`, and of its members, that it sees to itself."""


def reduce_class(cls: Any, key: bytes) -> tuple[Any, ...]:
    """Reduces a class to its definition, for use in a pickler's `reducer_override`.

    Raises:
        SerializationError: it is an `Enum` that cannot be made of the values of its members.
    """
    body: dict[str, Any] = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in _MADE_ANEW and not _comes_by_itself(cls, name, value)
    }
    if annotations := annotations_of(cls):
        body["__annotations__"] = annotations
    bases: Any = cls.__dict__.get("__orig_bases__", cls.__bases__)
    if issubclass(cls, Enum):
        early, body = _members_of(cls, body)
    else:
        if is_typeddict(cls) and bases == (dict,):
            bases = (TypedDict,)  # before Python 3.12, what derives from another has forgotten it
        early = {name: body[name] for name in body if _is_early(name, body[name], bases)}
        # Once more what `__init_subclass__` may have set, for want of keywords, to something else.
        body = {n: value for n, value in body.items() if n not in early or n not in _EARLY}
    early = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, **early}
    made: Any = type(cls), cls.__name__, bases, early
    return make_class, (key, made), (key, body), None, None, finish_class


def _is_early(name: str, value: Any, bases: tuple[Any, ...]) -> bool:
    """Whether a class is made with something in its body."""
    if name[:2] == "__":
        return name in _EARLY and NamedTuple not in bases
    return type(value) in _ATOMS


def _comes_by_itself(cls: type, name: str, value: Any) -> bool:
    """Whether something in the body of a class is there because of its slots, or as it has none."""
    is_field = isinstance(value, (MemberDescriptorType, GetSetDescriptorType))
    return is_field and value.__objclass__ is cls and value.__name__ == name


def _members_of(cls: Any, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes an `Enum` apart: what it is made with, and what its body gets later."""
    members: dict[str, Enum] = dict(cls.__members__)
    mixed_in = cast("Callable[[Any], object]", cls._member_type_)
    for one in members.values():
        if mixed_in is not object and not _is_made_of(one, mixed_in):
            raise SerializationError(
                f"{one} is made of something else than its value, {one._value_!r}. Move "
                f"{cls.__qualname__} to a module that the worker can import"
            )
    rest = {n: value for n, value in body.items() if n not in members and n not in _OF_ENUM}
    rest[_MEMBERS] = {
        name: {n: value for n, value in vars(one).items() if n not in _OF_MEMBER}
        for name, one in members.items()
    }
    return {name: member(one._value_) for name, one in members.items()}, rest


def _is_made_of(one: Enum, mixed_in: Callable[[Any], object]) -> bool:
    with suppress(Exception):
        return mixed_in(one._value_) == one
    return False


def make_class(key: bytes, made: tuple[Any, ...]) -> type:
    """Definitions name this function to make a class that lacks most of its body yet.

    Raises:
        SerializationError: its metaclass or one of its bases refuses that.
    """
    return IDENTITIES.make(key, _make, made)


def finish_class(cls: type, state: tuple[bytes, dict[str, Any]]) -> None:
    """Definitions name this function to fill in the body of a class.

    Raises:
        SerializationError: its metaclass refuses that.
    """
    key, body = state
    IDENTITIES.finish(cls, key, _fill, body)


def _make(metaclass: Any, name: str, bases: tuple[Any, ...], early: dict[str, Any]) -> type:
    try:
        return types.new_class(name, bases, {"metaclass": metaclass}, lambda b: b.update(early))
    except Exception as error:
        raise _refused(early["__qualname__"], error) from error


def _fill(cls: Any, body: dict[str, Any]) -> None:
    members: dict[str, dict[str, Any]] = body.pop(_MEMBERS, {})
    try:
        for name, value in body.items():
            setattr(cls, name, value)
        for name, attributes in members.items():
            cls[name].__dict__.update(attributes)
    except Exception as error:
        raise _refused(cls.__qualname__, error) from error


def _refused(name: str, error: Exception) -> SerializationError:
    return SerializationError(
        f"the class {name!r} cannot be made again, for its metaclass or a base of it wants more "
        f"than is there yet: {reason_of(error)}. Move it to a module that the worker can import"
    )


def reduce_member(one: Enum) -> Any:
    """Reduces a member of an `Enum` to its name; `NotImplemented` if it has none."""
    known = type(one).__members__.get(one._name_)
    return (operator.getitem, (type(one), one._name_)) if known is one else NotImplemented
