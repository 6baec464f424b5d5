"""Live objects travel by reference: they stay with their owner, who is asked to use them.

Three kinds of objects travel so: running iterators and generators, objects that tasks of a loop
wait for, such as a queue or a lock, and those that `reference` has marked. A payload names such an
object by a key. Its receiver makes a proxy of it, or, if the object is its own, takes the object
itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import weakref
from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from itertools import count
from types import AsyncGeneratorType, FunctionType, MethodType
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct

from wool._code.identity import IDENTITIES
from wool._code.loading import payload_references
from wool._forks import after_fork

T = TypeVar("T")

GENERATOR, ITERATOR, FUNCTION, OBJECT = range(4)
"""Kinds of objects, as their users are to see them."""

STEPS = frozenset({"__anext__", "asend", "athrow", "aclose"})
"""Operations that ask an iterator or a generator for something."""

WAITED_FOR = (
    asyncio.Queue,
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.Semaphore,
    asyncio.Barrier,
)
"""Classes of what belongs to one event loop: a copy would be waited for in vain."""

CLASSES_KNOWN = 1024
"""Of so many classes it is remembered whether their objects travel by reference."""

_GENERATOR = ("__anext__", "asend", "athrow", "aclose")
_SPECIAL = ("__call__", "__aiter__", "__anext__", "__aenter__", "__aexit__")


class Interface(Struct, frozen=True):
    """The part of an object that can be used from afar.

    Attributes:
        kind: `GENERATOR`, `ITERATOR`, `FUNCTION` or `OBJECT`.
        name: for messages.
        methods: what can be done with it, with a `*` before what makes an async generator.
    """

    kind: int
    name: str
    methods: tuple[str, ...]


class Held(Protocol):
    """A proxy's knowledge of the object it stands for."""

    key: bytes
    """Its key where the proxy has it from."""
    origin: bytes
    """Its key where it lives."""
    interface: Interface

    async def use(
        self, operation: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, BaseException | None]:
        """Has the owner do something; returns the result and None, or None and an exception."""
        ...


class Export:
    """An object of this process that others may use, or a proxy that is passed on.

    It belongs to the event loop it was first sent from, and is used there, in the context of then.

    Attributes:
        key: names it.
        held: what it stands for, if it is a proxy.
        driver: makes its steps, if it is an iterator; for the user of this class.
    """

    __slots__ = ("__weakref__", "context", "driver", "held", "interface", "key", "loop", "value")

    def __init__(self, key: bytes, value: Any, held: Held | None, interface: Interface) -> None:
        self.key = key
        self.value = value
        self.held = held
        self.interface = interface
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self.driver: Any = None

    @property
    def finished(self) -> bool:
        """Whether it is a generator that has ended."""
        value: Any = self.value
        return type(value) is AsyncGeneratorType and value.ag_frame is None


class Exports:
    """The objects of this process that travel, or are in use elsewhere.

    Attributes:
        marked: those that `reference` has marked, by their identity.
    """

    def __init__(self) -> None:
        self.marked: dict[int, weakref.ref[Any]] = {}
        self._by_object: weakref.WeakValueDictionary[tuple[int, int], Export] = (
            weakref.WeakValueDictionary()
        )
        self._by_key: weakref.WeakValueDictionary[bytes, Export] = weakref.WeakValueDictionary()
        self._numbers = count(1)

    def export(self, value: Any, held: Held | None) -> Export:
        """Returns the export of an object, or of a proxy that holds `held`, on the running loop.

        Raises:
            RuntimeError: no loop is running.
        """
        ident = id(value), id(asyncio.get_running_loop())
        export = self._by_object.get(ident)
        if export is None:
            key = IDENTITIES.process + next(self._numbers).to_bytes(8, "big")
            look = interface_of(value) if held is None else held.interface
            export = self._by_object[ident] = Export(key, value, held, look)
            self._by_key[key] = export
        return export

    def own(self, key: bytes) -> Export | None:
        """Returns what has this key and belongs to the running loop."""
        export = self._by_key.get(key)
        if export is None or export.loop is not asyncio.get_running_loop():
            return None
        return export

    def mark(self, value: Any) -> None:
        """Has an object travel by reference for as long as it lives."""
        ident = id(value)

        def forget(gone: weakref.ref[Any]) -> None:
            if self.marked.get(ident) is gone:
                del self.marked[ident]

        self.marked[ident] = weakref.ref(value, forget)

    def forked(self) -> None:
        """Forgets what the parent process exports."""
        self._by_object.clear()
        self._by_key.clear()


# The objects that are in use elsewhere, and how they are to travel, are facts of the process.
EXPORTS = Exports()
after_fork(EXPORTS.forked)


def reference(value: T, /) -> T:
    """Marks an object to travel by reference from now on, and returns it.

    Passed to a routine, or returned or yielded by one, the object stays where it is. Others get
    something that has its async methods: awaiting one runs it where the object is, on its event
    loop. Sent back, it is the object itself. Async iterators and generators need no mark.

    Args:
        value: an async function, a bound method of that kind, or an object with such methods.

    Raises:
        TypeError: nothing of it is async, or it cannot be marked.
    """
    if held_by(value) is None and not interface_of(value).methods:
        raise TypeError(
            f"wool.reference() takes an async function or an object with async methods, and "
            f"{value!r} has none: only what is awaited can be done elsewhere. Write `async def`"
        )
    try:
        EXPORTS.mark(value)
    except TypeError:
        raise TypeError(
            f"{type(value).__qualname__} objects cannot be marked, for there are no weak "
            "references to them: pass an async function or a bound method that uses the object"
        ) from None
    return value


def held_by(value: Any) -> Held | None:
    """Returns what a proxy stands for, None for anything else."""
    if isinstance(value, FunctionType):
        return value.__dict__.get("__wool_held__")
    cls = cast("type[Any]", type(value))
    return value._held if is_proxy(cls) else None


def travels(value: Any) -> bool:
    """Whether an object that is no function travels by reference."""
    return _stays(cast("type[Any]", type(value))) or id(value) in EXPORTS.marked


def function_travels(function: FunctionType) -> bool:
    """Whether a function travels by reference."""
    return id(function) in EXPORTS.marked or "__wool_held__" in function.__dict__


def must_stay(value: Any) -> bool:
    """Whether an object would be of no use as a copy, which is all that code can take along."""
    if isinstance(value, FunctionType):
        return function_travels(value)
    cls = cast("type[Any]", type(value))
    return issubclass(cls, WAITED_FOR) or id(value) in EXPORTS.marked or is_proxy(cls)


def is_proxy(cls: type[Any]) -> bool:
    """Whether objects of a class stand for what lives elsewhere."""
    return getattr(cls, "__wool_proxy__", None) is cls


@lru_cache(CLASSES_KNOWN)
def _stays(cls: type[Any]) -> bool:
    """Whether all objects of a class travel by reference.

    Of a mock `__anext__` is something that makes one when it is asked for: it is no iterator.
    """
    iterates = callable(inspect.getattr_static(cls, "__anext__", None))
    return is_proxy(cls) or iterates or issubclass(cls, WAITED_FOR)


def interface_of(value: Any) -> Interface:
    """Returns what of an object can be used from afar."""
    cls = cast("type[Any]", type(value))
    if isinstance(value, AsyncGeneratorType):
        return Interface(GENERATOR, f"{value.__qualname__}()", _GENERATOR)
    if isinstance(value, (FunctionType, MethodType)):
        methods = _async_methods(value, ["__call__"], lambda _: value)
        return Interface(FUNCTION, f"{value.__qualname__}()", methods)
    if isinstance(value, AsyncGenerator):
        return Interface(GENERATOR, f"the {cls.__qualname__}", _GENERATOR)
    if id(value) not in EXPORTS.marked and hasattr(cls, "__anext__"):
        closing = ("aclose",) if inspect.iscoroutinefunction(getattr(cls, "aclose", None)) else ()
        return Interface(ITERATOR, f"the {cls.__qualname__}", ("__anext__", *closing))
    names = [*_SPECIAL, *(name for name in dir(cls) if not name.startswith("_"))]
    methods = _async_methods(value, names, lambda name: inspect.getattr_static(cls, name, None))
    return Interface(OBJECT, f"the {cls.__qualname__}", methods)


def _async_methods(value: Any, names: list[str], look_up: Callable[[str], Any]) -> tuple[str, ...]:
    methods: list[str] = []
    for name in names:
        found = look_up(name)
        function = getattr(found, "__func__", found)
        if name in ("__aiter__", "__anext__"):
            methods += [name] if function is not None else []
        elif inspect.isasyncgenfunction(function):
            methods.append(f"*{name}")
        elif inspect.iscoroutinefunction(function) or (
            name == "__call__" and inspect.iscoroutinefunction(value)  # as of a partial
        ):
            methods.append(name)
    return tuple(methods)


def reduce_reference(value: Any) -> tuple[Export, tuple[Any, ...]]:
    """Returns the export of an object that travels by reference, and its reduction."""
    held = held_by(value)
    export = EXPORTS.export(value, held)
    home, origin = (b"", export.key) if held is None else (held.key, held.origin)
    look = export.interface
    arguments = export.key, home, origin, look.kind, look.name, look.methods
    return export, (find_reference, arguments)


# Names in payloads ------------------------------------------------------------------------------


def find_reference(
    key: bytes, home: bytes, origin: bytes, kind: int, name: str, methods: tuple[str, ...]
) -> Any:
    """Pickles name this function to refer to an object that lives elsewhere, or with the receiver.

    Args:
        key: of the object, or of the sender's proxy, at the sender.
        home: the key under which the sender itself was lent the object; empty if it owns it.
        origin: of the object where it lives.
    """
    return payload_references().find(key, home, origin, Interface(kind, name, methods))
