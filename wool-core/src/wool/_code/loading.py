"""Functions that payloads and units name to refer to code and to live objects."""

from __future__ import annotations

from contextvars import ContextVar
from types import ModuleType
from typing import Any, Protocol

from wool._code.identity import IDENTITIES
from wool._code.names import find_object
from wool._code.units import MissingCode


class Source(Protocol):
    """Where a payload being rebuilt gets code from.

    Attributes:
        builtins: what functions that travel by value find under built-in names.
    """

    builtins: dict[str, Any]

    def load(self, key: bytes) -> Any:
        """Returns the function or class with this key."""

    def namespace(self, owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
        """Returns the globals for functions of a module of another process."""
        ...

    def module(self, name: str) -> ModuleType:
        """Returns a module that travels."""
        ...


class Referents(Protocol):
    """The objects that the references in a payload refer to."""

    def find(self, key: bytes, home: bytes, origin: bytes, interface: Any) -> Any:
        """Returns the object with one of these keys if it lives here, else a proxy for it."""


class _NoReferents:
    def find(self, key: bytes, home: bytes, origin: bytes, interface: Any) -> Any:
        raise LookupError("a payload refers to a live object that its frame does not name")


NO_REFERENTS: Referents = _NoReferents()

LOADING: ContextVar[tuple[Source, BaseException | None, Referents]] = ContextVar("wool_loading")
"""The objects behind the names in the payload being rebuilt: where its code is, the exception that
was thrown into the generator whose step it ends, the live objects that came with it."""


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


def make_globals(base: dict[str, Any]) -> dict[str, Any]:
    """Payloads name this function to make globals for functions that have their own."""
    return {**base, "__builtins__": LOADING.get()[0].builtins}


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
    cls = IDENTITIES.find(key)
    if cls is None:
        # The load of the definition holds the class, until the payload being read does.
        definition = LOADING.get()[0].load(key)
        cls = IDENTITIES.find(key)
        if cls is None and isinstance(definition, type):
            # The key is of a later edition; or the class could be imported by when its definition
            # was written, which is its name then.
            cls = definition
        del definition
    if cls is None:
        raise MissingCode(key)
    return cls
