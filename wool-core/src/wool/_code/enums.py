"""An `Enum` by value, and its members.

A member is made of what it consists of, not by a `__new__` and `__init__` of its class: those may
take something else than its value. As a value it goes by its name, unless its own value is sure to
be equal to a copy of it.
"""

from __future__ import annotations

from enum import Enum, EnumType
from types import BuiltinFunctionType
from typing import Any, cast

_PARTS = frozenset({"_name_", "_value_", "_sort_order_", "__objclass__", "_inverted_"})
"""Attributes of a member that its class sees to."""

_BOOKS = frozenset(
    {
        "_generate_next_value_",
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
    }
)
"""Attributes of an `Enum` that its metaclass sees to."""

MEMBERS = "__wool_members__"
"""Names in the body of an `Enum` what its members have."""

_FOUND = frozenset({int, str, bytes})
"""Members with such a value are found by it."""


def reduce_member(member: Enum) -> Any:
    """Reduces a member; `NotImplemented` for those that can do so themselves, or have no name."""
    cls = type(member)
    if type(member._value_) in _FOUND or cls.__reduce_ex__ is not Enum.__reduce_ex__:
        return NotImplemented
    name = member._name_
    known = cls._member_map_.get(name)
    return (find_member, (cls, name)) if known is member else NotImplemented


def find_member(cls: type[Enum], name: str) -> Enum:
    """Pickles name this function to refer to a member."""
    return cls._member_map_[name]


def reduce_enum(cls: type[Enum], attributes: dict[str, Any]) -> tuple[Any, ...]:
    """Takes an `Enum` apart.

    Args:
        attributes: all that is in its body.

    Returns:
        The arguments of `make_enum`, and what its body gets apart from them.
    """
    members = cls.__members__
    made = {name: (*_made_of(member), member._value_) for name, member in members.items()}
    rest = {n: value for n, value in attributes.items() if n not in members and n not in _BOOKS}
    rest[MEMBERS] = {name: _own(member) for name, member in members.items()}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return (type(cls), cls.__name__, cls.__bases__, names, made), rest


def make_enum(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    names: dict[str, str],
    members: dict[str, tuple[Any, ...]],
) -> type[Enum]:
    """Definitions name this function to make an `Enum` with its members."""
    # The metaclass may be the user's, and would take members for what it once made them from.
    body: Any = EnumType.__dict__["__prepare__"].__get__(None, metaclass)(name, bases)
    body |= {**names, "__new__": _new, "__init__": _init}
    for member, parts in members.items():
        body[member] = _Parts(*parts)
    cls = EnumType.__new__(metaclass, name, bases, body)
    type.__delattr__(cls, "__init__")
    type.__delattr__(cls, "__new_member__")
    return cls


def fill_members(cls: type[Enum], members: dict[str, tuple[Any, Any]]) -> None:
    """Gives members what their `__new__` and `__init__` had given them."""
    for name, (own, slots) in members.items():
        member = cls._member_map_[name]
        vars(member).update(own)
        for slot, value in slots.items():
            object.__setattr__(member, slot, value)


_COPIED: tuple[Any, ...] = (list, dict)
"""Those that do not say what they could be made from."""


class _Parts:
    """Stands for a member in the body of a class, where a tuple would be taken apart."""

    def __init__(self, base: Any, args: tuple[Any, ...], value: Any) -> None:
        self.base = base
        self.args = args
        self.value = value


def _new(cls: type[Enum], parts: Any) -> Enum:
    if isinstance(parts, tuple):  # a tuple is mixed in
        (parts,) = cast("tuple[Any]", parts)
    member = parts.base.__new__(cls, *parts.args)
    if parts.base.__init__ is not object.__init__:
        parts.base.__init__(member, *parts.args)
    member._value_ = parts.value
    return member


def _init(self: Enum, parts: Any) -> None:
    pass


def _made_of(member: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns the built-in type that a member is an instance of, and what that makes it from."""
    base: Any = next(
        base
        for base in type(member).__mro__
        if isinstance(vars(base).get("__new__"), BuiltinFunctionType)
    )
    if base is object:
        return base, ()
    if hasattr(base, "__getnewargs__"):
        return base, base.__getnewargs__(member)
    if base in _COPIED:
        return base, (base.copy(member),)
    return base, base.__reduce__(member)[1]


def _own(member: Enum) -> tuple[Any, Any]:
    """Returns the attributes that a member has, and its slots."""
    state: Any = object.__getstate__(member)
    slots: Any = {}
    if isinstance(state, tuple):
        state, slots = cast("tuple[Any, Any]", state)
    return {name: value for name, value in state.items() if name not in _PARTS}, slots
