"""Classes that travel by value keep their identity.

A class of `__main__`, of a notebook or of a function body cannot be imported elsewhere, so its
definition travels. Still it must stay one class: an exception of the caller's own class that
comes back from a worker is caught by the caller's `except`. So every such class has a key, made
where it was defined, and each process keeps a table of keys. Payloads name the key; the
definition goes only to a receiver that lacks it, and a class that is known is never modified.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from itertools import count
from types import FunctionType, MethodType, ModuleType
from typing import Any, Generic, NamedTuple, Protocol, TypedDict, TypeVar, is_typeddict

from wool._code.bodies import (
    comes_with_slots,
    fill_class,
    given_at_once,
    new_class,
    registrations,
)
from wool._code.codeobjects import annotations_of
from wool._code.enums import fill_enum, make_enum, reduce_enum
from wool._code.names import find_object
from wool._code.units import MissingCode
from wool._forks import after_fork

PROCESS_BYTES = 8
KEY_BYTES = PROCESS_BYTES + 8


V = TypeVar("V")


class ByClass(Generic[V]):
    """What is known of classes while they live, whatever their metaclass says to comparing them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[type], V]] = {}

    def get(self, cls: type) -> V | None:
        known = self._known.get(id(cls))
        return None if known is None else known[1]

    def __setitem__(self, cls: type, value: V) -> None:
        number = id(cls)
        gone = weakref.ref(cls, lambda _: self._known.pop(number, None))
        self._known[number] = gone, value

    def __delitem__(self, cls: type) -> None:
        del self._known[id(cls)]


class ClassTable:
    """The classes of one process that travel by value, and their keys."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._renew()
        self._keys = ByClass[bytes]()
        self._classes: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()
        self._unfinished: set[bytes] = set()
        self._filling: dict[bytes, int] = {}  # by which thread

    def _renew(self) -> None:
        self.process = os.urandom(PROCESS_BYTES)
        """Identifies this process: its keys begin with it."""
        self._numbers = count(1)

    def forked(self) -> None:
        """Makes a forked child another process than its parent: it will define other classes."""
        self.lock = threading.RLock()
        self._renew()

    def key(self, cls: type) -> bytes:
        """Returns the key of a class, a new one if it was defined here."""
        with self.lock:
            key = self._keys.get(cls)
            if key is None:
                key = self.new_key()
                self._add(key, cls)
            return key

    def new_key(self) -> bytes:
        """Makes a key that no other process makes."""
        return self.process + next(self._numbers).to_bytes(KEY_BYTES - PROCESS_BYTES, "big")

    def find(self, key: bytes) -> type | None:
        """Returns the class with this key, if this process knows it and has all of it."""
        here = threading.get_ident()
        partial = key in self._unfinished or self._filling.get(key, here) != here
        return None if partial else self._classes.get(key)

    def make(self, key: bytes, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
        """Returns the class with this key, made from its definition unless it is known."""
        with self.lock:
            cls = self._classes.get(key)
            if cls is None:
                cls = make(*arguments)
                self._unfinished.add(key)  # first: who looks for it takes no lock
                self._add(key, cls)
            return cls

    def finish(
        self, cls: type, key: bytes, set_state: Callable[[type, Any], Any], state: Any
    ) -> None:
        """Fills in the body of a class that `make` has just made; leaves others alone."""
        with self.lock:
            if key not in self._unfinished:
                return
            self._filling[key] = threading.get_ident()
            self._unfinished.discard(key)
            try:
                set_state(cls, state)
            except BaseException:
                del self._keys[cls], self._classes[key]
                raise
            finally:
                del self._filling[key]

    def _add(self, key: bytes, cls: type) -> None:
        self._keys[cls] = key
        self._classes[key] = cls


# Class identity is a fact of the process, so its table is too.
CLASSES = ClassTable()
after_fork(CLASSES.forked)


class Source(Protocol):
    """Where a payload being rebuilt gets code from."""

    def load(self, key: bytes) -> Any:
        """Returns the function or class with this key."""

    def namespace(self, owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
        """Returns the globals for functions of a module of another process."""
        ...

    def module(self, name: str) -> ModuleType:
        """Returns a module that travels."""
        ...


class Referents(Protocol):
    """What the references in a payload refer to."""

    def find(self, key: bytes, home: bytes, origin: bytes, interface: Any) -> Any:
        """Returns the object with one of these keys if it lives here, else a proxy for it."""


class _NoReferents:
    def find(self, key: bytes, home: bytes, origin: bytes, interface: Any) -> Any:
        raise LookupError("a payload refers to a live object that its frame does not name")


NO_REFERENTS: Referents = _NoReferents()

LOADING: ContextVar[tuple[Source, BaseException | None, Referents]] = ContextVar("wool_loading")
"""What the names in the payload refer to that is being rebuilt: where its code is, the exception
that was thrown into the generator whose step it ends, the live objects that came with it."""


def find_thrown() -> BaseException:
    """Pickles name this function to refer to the exception that the receiver had thrown in."""
    thrown = LOADING.get()[1]
    return RuntimeError("an exception thrown in earlier") if thrown is None else thrown


def payload_references() -> Referents:
    """Returns the live objects that came with the payload being rebuilt."""
    return LOADING.get()[2]


def find_namespace(owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
    """Units name this function to refer to the globals that functions of a module share."""
    return LOADING.get()[0].namespace(owner, module, base)


def find_module(name: str) -> ModuleType:
    """Payloads name this function to refer to a module that travels."""
    return LOADING.get()[0].module(name)


def find_in_module(name: str, qualname: str) -> Any:
    """Payloads name this function to refer to a function or class of a module that travels."""
    found = find_object(find_module(name), qualname)
    return getattr(found, "__func__", found)


def find_globals(name: str) -> dict[str, Any]:
    """Units name this function to refer to the globals of a module that travels."""
    return vars(find_module(name))


def find_code(key: bytes) -> Any:
    """Returns the function or class with this key, for a payload that is being rebuilt.

    Raises:
        MissingCode: it is not here.
    """
    return LOADING.get()[0].load(key)


def find_class(key: bytes) -> type:
    """Pickles name this function to refer to a class by its key."""
    cls = CLASSES.find(key)
    if cls is None:
        # Whoever loads the definition holds the class, until the payload being read does.
        definition = LOADING.get()[0].load(key)
        cls = CLASSES.find(key)
        if cls is None and isinstance(definition, type):
            # The key is of a later edition; or the class could be imported by when its definition
            # was written, which is its name then.
            cls = definition
        del definition
    if cls is None:
        raise MissingCode(key)
    return cls


def find_method(cls: type, name: str, function: FunctionType) -> Any:
    """Units name this function to refer to a method of a class that they define themselves.

    What is in the body of a class is there before the class has it.
    """
    finished = CLASSES.find(CLASSES.key(cls)) is cls
    return getattr(cls, name) if finished else MethodType(function, cls)


def guard_class(cls: Any, key: bytes, native: tuple[Any, ...]) -> tuple[Any, ...]:
    """Changes cloudpickle's reduction of a class so that a class that is known stays as it is.

    Slots and the qualified name are given when the class is made: cloudpickle sets the former
    later, which makes no slots, and leaves out the latter. It also sorts what is in the body, and
    leaves out what is the same in a base, which may not be the one that would be found.
    """
    _, arguments, (found, _), *_ = native
    bases = cls.__bases__
    attributes = {
        name: found.get(name, value)
        for name, value in cls.__dict__.items()
        if name in found or any(base.__dict__.get(name) is value for base in bases)
    }
    if annotations := annotations_of(cls):
        attributes.pop("__annotations_cache__", None)
        attributes["__annotations__"] = annotations
    if issubclass(cls, Enum):
        made, (attributes, members) = reduce_enum(cls, attributes)
        body = (key, fill_enum, (attributes, members))
        return make_class, (key, make_enum, made), body, None, None, finish_class
    metaclass, name, bases, names, *_ = arguments
    names = {**names, "__qualname__": cls.__qualname__}
    if "__slots__" in cls.__dict__ and NamedTuple not in bases:
        names["__slots__"] = cls.__dict__["__slots__"]
    names |= {name: attributes[name] for name in given_at_once(cls, attributes)}
    attributes = {
        name: value
        for name, value in attributes.items()
        if name not in names and not comes_with_slots(cls, name, value)
    } | registrations(cls)
    made = metaclass, name, _bases(cls, bases), names
    return (
        make_class,
        (key, new_class, made),
        (key, fill_class, attributes),
        None,
        None,
        finish_class,
    )


def _bases(cls: Any, bases: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns what a class is made with as its bases: a `TypedDict` that derives from another one
    has, before Python 3.12, forgotten it.
    """
    return (TypedDict,) if is_typeddict(cls) and bases == (dict,) else bases


def make_class(key: bytes, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Definitions name this function to make a class."""
    return CLASSES.make(key, make, arguments)


def finish_class(cls: type, state: tuple[bytes, Callable[[type, Any], Any], Any]) -> None:
    """Definitions name this function to fill in the body of a class."""
    key, set_state, body = state
    CLASSES.finish(cls, key, set_state, body)
