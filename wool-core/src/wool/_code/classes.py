"""Classes that travel by value: what they consist of, and how they are made of that again.

A class is made first without those parts of its body that may lead back to it. So the
`__init_subclass__` of its bases and the `__new__` of its metaclass find names, numbers and the like
there, nothing else, nor the keywords that came with the definition. One that refuses that makes a
clear error.
"""

from __future__ import annotations

import abc
import collections.abc
import copyreg
import numbers
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from types import (
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple, TypedDict, cast, is_typeddict

from wool._code.enums import MEMBERS, fill_members, make_enum, reduce_enum
from wool._code.functions import annotations_of
from wool._code.identity import CLASSES
from wool._texts import reason_of
from wool.exceptions import SerializationError

_REGISTERED = "__wool_registered__"
"""Names in the body of an abstract class the classes registered with it, and keeps them alive."""

_REGISTERED_WITH = "__wool_registered_with__"
"""Names in the body of a class the abstract classes that it is registered with."""

_REDUCER = "__wool_reducer__"
"""Names in the body of a class how `copyreg` pickles its objects."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})

_MADE_ANEW = frozenset({"_abc_impl", "__annotate_func__", "__annotations_cache__"})
"""Attributes that no class takes from another one."""

_INTERFACES: tuple[Any, ...] = tuple(
    base
    for module in (collections.abc, numbers)
    for base in vars(module).values()
    if isinstance(base, abc.ABCMeta)
)


def reduce_class(cls: Any, key: bytes) -> tuple[Any, ...]:
    """Reduces a class to its definition, for use in a pickler's `reducer_override`."""
    attributes = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in _MADE_ANEW and not _comes_by_itself(cls, name, value)
    }
    if annotations := annotations_of(cls):
        attributes["__annotations__"] = annotations
    attributes |= _registrations(cls)
    if issubclass(cls, Enum):
        made, attributes = reduce_enum(cls, attributes)
        return make_class, (key, make_enum, made), (key, attributes), None, None, finish_class
    bases: Any = cls.__dict__.get("__orig_bases__", cls.__bases__)
    if is_typeddict(cls) and bases == (dict,):
        bases = (TypedDict,)  # before Python 3.12, what derives from another one has forgotten it
    at_once = {"__module__", *_given_at_once(cls, attributes)}
    at_once.update(n for n, v in attributes.items() if type(v) in _ATOMS and n[:2] != "__")
    if NamedTuple not in bases:
        at_once.add("__slots__")
    names = {name: attributes[name] for name in attributes if name in at_once}
    attributes = {name: value for name, value in attributes.items() if name not in at_once}
    names["__qualname__"] = cls.__qualname__
    made: Any = type(cls), cls.__name__, bases, names
    return make_class, (key, new_class, made), (key, attributes), None, None, finish_class


def make_class(key: bytes, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Definitions name this function to make a class."""
    return CLASSES.make(key, make, arguments)


def finish_class(cls: type, state: tuple[bytes, dict[str, Any]]) -> None:
    """Definitions name this function to fill in the body of a class."""
    key, attributes = state
    CLASSES.finish(cls, key, fill_class, attributes)


def new_class(metaclass: Any, name: str, bases: tuple[Any, ...], names: dict[str, Any]) -> type:
    """Definitions name this function to make a class that lacks most of its body yet.

    Raises:
        SerializationError: its metaclass or one of its bases refuses that.
    """
    try:
        return types.new_class(
            name, bases, {"metaclass": metaclass}, lambda body: body.update(names)
        )
    except Exception as error:
        raise SerializationError(
            f"the class {names['__qualname__']!r} cannot be made again, for its metaclass or a "
            f"base of it wants more than is there yet: {reason_of(error)}. Move it to a module "
            "that the worker can import"
        ) from error


def fill_class(cls: Any, attributes: dict[str, Any]) -> None:
    """Fills in the body of a class, whatever its metaclass says to setting attributes."""
    set_one = setter_of(type(cls))
    for name, value in attributes.items():
        if name not in (_REGISTERED_WITH, _REDUCER, MEMBERS):
            set_one(cls, name, value)
    if "__firstlineno__" in attributes:  # setting another attribute has removed it
        set_one(cls, "__firstlineno__", attributes["__firstlineno__"])
    fill_members(cls, attributes.get(MEMBERS, {}))
    for subclass in attributes.get(_REGISTERED, ()):  # the registry itself does not keep them
        cls.register(subclass)
    for base in attributes.get(_REGISTERED_WITH, ()):
        base.register(cls)
    if _REDUCER in attributes:
        copyreg.pickle(cls, attributes[_REDUCER])


def find_method(cls: type, name: str, function: FunctionType) -> Any:
    """Units name this function to refer to a method of a class that they define themselves.

    What is in the body of a class is there before the class has it.
    """
    finished = CLASSES.find(CLASSES.key(cls)) is cls
    return getattr(cls, name) if finished else MethodType(function, cls)


def _registrations(cls: Any) -> dict[str, Any]:
    """Returns what goes into the body of a class about where it is registered: with abstract
    classes, and with `copyreg`.

    Only the abstract classes of the standard library are asked. Those that travel by value take
    what is registered with them along; no other class knows what is registered with it.
    """
    above = cls.__mro__
    found: dict[str, Any] = {}
    if known := [base for base in _INTERFACES if base not in above and _claims(base, cls)]:
        found[_REGISTERED_WITH] = known
    if cls in copyreg.dispatch_table:
        found[_REDUCER] = copyreg.dispatch_table[cls]
    if isinstance(cls, abc.ABCMeta):
        # There is no documented way to ask an abstract class; cloudpickle asks it so as well.
        registry = cast(Any, abc)._get_dump(cls)[0]
        if registered := [subclass for ref in registry if (subclass := ref()) is not None]:
            found[_REGISTERED] = registered
    return found


def _claims(base: Any, cls: type) -> bool:
    with suppress(Exception):  # a class may hook into the question
        return issubclass(cls, base)
    return False


def setter_of(metaclass: Any) -> Callable[[Any, str, Any], None]:
    """Returns what sets attributes of a class beneath all that is written in Python."""
    bodies: list[Any] = [vars(base) for base in metaclass.__mro__]
    setters = [body["__setattr__"] for body in bodies if "__setattr__" in body]
    return next(one for one in setters if isinstance(one, WrapperDescriptorType))


def _given_at_once(cls: Any, names: Iterable[str]) -> set[str]:
    """Returns those names of what is in the body of a class that it has to be made with: setting
    them is something else, as its metaclass has properties that are called so.
    """
    above: Any = type(cls).__mro__
    bodies: list[Any] = [vars(base) for base in above]
    found = {name for name in names for body in bodies if hasattr(body.get(name), "__set__")}
    return found - _SET_LATER


_SET_LATER = frozenset({"__abstractmethods__", "__annotations__", "__doc__", "__type_params__"})
"""Properties of `type` that set what is in the body."""


def _comes_by_itself(cls: type, name: str, value: Any) -> bool:
    """Whether something in the body of a class is there because of its slots, or as it has none."""
    is_field = isinstance(value, (MemberDescriptorType, GetSetDescriptorType))
    return is_field and value.__objclass__ is cls and value.__name__ == name
