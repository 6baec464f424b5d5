"""Makes classes that travel by value: first without what is in their bodies, which may lead back to
them, then with it.

The `__init_subclass__` of a base may want that, or keywords that came with the definition, and so
may the `__new__` of a metaclass. A class that one of them refuses is made without; its bases are
told when all of it is there.
"""

from __future__ import annotations

import abc
import collections.abc
import copyreg
import numbers
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import MemberDescriptorType, WrapperDescriptorType
from typing import Any, cast

_REGISTERED = "__wool_registered__"
"""An attribute of abstract classes that keeps alive the classes registered with them."""

_REGISTERED_WITH = "__wool_registered_with__"
"""Names in the body of a class the abstract classes that it is registered with."""

_REDUCER = "__wool_reducer__"
"""Names in the body of a class how `copyreg` pickles its objects."""

_INTERFACES: tuple[Any, ...] = tuple(
    base
    for module in (collections.abc, numbers)
    for base in vars(module).values()
    if isinstance(base, abc.ABCMeta)
)

_UNTOLD = "__wool_untold__"
"""What a class has whose bases have not been told of it."""


def new_class(metaclass: Any, name: str, bases: tuple[Any, ...], names: dict[str, Any]) -> type:
    """Definitions name this function to make a class whose body is empty yet."""
    try:
        return types.new_class(
            name, bases, {"metaclass": metaclass}, lambda body: body.update(names)
        )
    except Exception:
        made = _make_all_the_same(metaclass, name, bases, names)
        if made is None:
            raise
        return made


def _make_all_the_same(
    metaclass: Any, name: str, bases: tuple[Any, ...], names: dict[str, Any]
) -> type | None:
    """Makes a class whose metaclass or bases want more than an empty body: what is in it, or the
    keywords that came with its definition. Returns None if that cannot be done.
    """
    caught = _Caught()
    for maker in metaclass.__mro__[:-1]:
        if "__new__" in vars(maker) and caught.cls is None:
            with suppress(Exception):
                body = {**names, _UNTOLD: caught}
                maker.__new__(metaclass, name, types.resolve_bases(bases), body)
    cls = caught.cls
    if isinstance(cls, abc.ABCMeta) and "_abc_impl" not in vars(cls):
        cast(Any, abc)._abc_init(cls)
    return cls


class _Caught:
    """Gets hold of a class before its bases are told of it."""

    cls: type | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.cls = owner


def fill_class(cls: type, attributes: dict[str, Any]) -> None:
    """Definitions name this function to fill in the body of a class, whatever its metaclass says to
    setting attributes.
    """
    _set_attributes(cls, attributes)
    if _UNTOLD in vars(cls):
        type.__delattr__(cls, _UNTOLD)
        with suppress(Exception):  # it may want keywords
            super(cls, cls).__init_subclass__()
        _set_attributes(cls, attributes)


def _set_attributes(cls: Any, attributes: dict[str, Any]) -> None:
    set_one = setter_of(type(cls))
    for name, value in attributes.items():
        if name not in ("_abc_impl", _REGISTERED_WITH, _REDUCER):
            set_one(cls, name, value)
    if "__firstlineno__" in attributes:  # setting another attribute has removed it
        set_one(cls, "__firstlineno__", attributes["__firstlineno__"])
    registered = attributes.get("_abc_impl", ())
    for subclass in registered:
        cls.register(subclass)
    if registered:  # the registry itself would not keep them
        set_one(cls, _REGISTERED, registered)
    for base in attributes.get(_REGISTERED_WITH, ()):
        base.register(cls)
    if _REDUCER in attributes:
        copyreg.pickle(cls, attributes[_REDUCER])


def registrations(cls: Any) -> dict[str, Any]:
    """Returns what goes into the body of a class about where it is registered: with abstract
    classes, and with `copyreg`.

    Only the abstract classes of the standard library are asked. Those that travel by value take
    what is registered with them along; no other class knows what is registered with it.
    """
    above = cls.__mro__
    known = [base for base in _INTERFACES if base not in above and _claims(base, cls)]
    found: dict[str, Any] = {_REGISTERED_WITH: known} if known else {}
    if cls in copyreg.dispatch_table:
        found[_REDUCER] = copyreg.dispatch_table[cls]
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


def given_at_once(cls: Any, names: Iterable[str]) -> set[str]:
    """Returns those names of what is in the body of a class that it has to be made with: setting
    them is something else, as its metaclass has properties that are called so.
    """
    above: Any = type(cls).__mro__
    bodies: list[Any] = [vars(base) for base in above]
    found = {name for name in names for body in bodies if hasattr(body.get(name), "__set__")}
    return found - _SET_LATER


_SET_LATER = frozenset({"__abstractmethods__", "__annotations__", "__doc__", "__type_params__"})
"""Properties of `type` that set what is in the body."""


def comes_with_slots(cls: type, name: str, value: Any) -> bool:
    """Whether something in the body of a class is there because of its slots."""
    is_slot = isinstance(value, MemberDescriptorType)
    return is_slot and value.__objclass__ is cls and value.__name__ == name
