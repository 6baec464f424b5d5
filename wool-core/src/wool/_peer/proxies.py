"""Proxies: user code gets them for objects that live elsewhere.

A proxy has the async methods of the object, and nothing else of it. For a function it is a real
function, so that `inspect` sees what it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import lru_cache
from types import FunctionType
from typing import Any

from wool._peer.chaining import settle_context
from wool._values.references import GENERATOR, ITERATOR, OBJECT, Held

ELSEWHERE = "<live object>"
"""Tracebacks show this as the file of a proxy's frames."""

CLASSES_KEPT = 256
"""So many classes of proxies are kept for objects of the user's classes."""


def _unseen(function: FunctionType) -> Any:
    """Has tracebacks say what a frame of a function stands for, instead of where its code is."""
    function.__code__ = function.__code__.replace(co_filename=ELSEWHERE)
    return function


@_unseen
async def _use(
    held: Held, operation: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> Any:
    value, error = await held.use(operation, args, kwargs)
    if error is None:
        return value
    context = error.__context__
    try:
        raise error
    finally:
        settle_context(error, context, args[0] if operation == "athrow" else None)
        del error, context, args  # the traceback has this frame, which must not have it


class Proxy:
    """Stands for an object that lives elsewhere."""

    __slots__ = ("__weakref__", "_held")
    __wool_proxy__: type[Proxy]

    def __init__(self, held: Held) -> None:
        self._held = held

    def __init_subclass__(cls) -> None:
        cls.__wool_proxy__ = cls  # tells proxies from what users derive from them

    def __getattr__(self, name: str) -> Any:
        what = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_"):
            what += ": of what lives elsewhere, only what is awaited or iterated can be used"
        raise AttributeError(what, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<reference to {self._held.interface.name}>"


class IteratorProxy(Proxy):
    """Stands for an async iterator."""

    __slots__ = ()

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return _use(self._held, "__anext__")


class ClosableProxy(IteratorProxy):
    """Stands for an async iterator that can be closed."""

    __slots__ = ()

    def aclose(self) -> Coroutine[Any, Any, None]:
        return _use(self._held, "aclose")


class GeneratorProxy(ClosableProxy, AsyncGenerator[Any, Any]):
    """Stands for an async generator."""

    __slots__ = ()

    def asend(self, value: Any) -> Coroutine[Any, Any, Any]:
        return _use(self._held, "asend", (value,))

    def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Coroutine[Any, Any, Any]:
        return _use(self._held, "athrow", (_exception(typ, val, tb),))


def _exception(typ: Any, val: Any, tb: Any) -> BaseException:
    """Makes one exception of what was thrown, as Python does."""
    error = typ if val is None else val
    if isinstance(error, type) and issubclass(error, BaseException):
        error = error()
    elif not isinstance(error, BaseException):
        error = typ() if error is None else typ(error)
    return error if tb is None else error.with_traceback(tb)


def make_proxy(held: Held) -> Any:
    """Makes what stands for an object."""
    look = held.interface
    if look.kind == GENERATOR:
        return GeneratorProxy(held)
    if look.kind == ITERATOR:
        return (ClosableProxy if "aclose" in look.methods else IteratorProxy)(held)
    if look.kind == OBJECT:
        return _proxy_class(look.name, look.methods)(held)
    function: Any = _make_call("__call__", lambda args: (held, args))
    if look.methods != ("__call__",):
        function = make_stream(function)
    function.__qualname__ = look.name.removesuffix("()")
    function.__name__ = function.__qualname__.rpartition(".")[2]
    function.__wool_held__ = held
    return function


@lru_cache(CLASSES_KEPT)
def _proxy_class(name: str, methods: tuple[str, ...]) -> Any:
    """Makes the class of proxies for objects with these methods."""
    scope: dict[str, Any] = {"__slots__": ()}
    for method in methods:
        operation = method.lstrip("*")
        if operation == "__aiter__" and "__anext__" in methods:
            scope[operation] = IteratorProxy.__aiter__
        elif operation == "__aiter__" or method != operation:
            scope[operation] = make_stream(_make_call(operation, _split))
        elif operation == "__aexit__":
            scope[operation] = _leave
            continue
        else:
            scope[operation] = _make_call(operation, _split)
        scope[operation].__name__ = operation
    return type(f"{name.removeprefix('the ')}Proxy", (Proxy,), scope)


Split = Callable[[tuple[Any, ...]], "tuple[Held, tuple[Any, ...]]"]
"""Tells the object from what is passed to it."""


def _split(args: tuple[Any, ...]) -> tuple[Held, tuple[Any, ...]]:
    return args[0]._held, args[1:]


def _make_call(operation: str, split: Split) -> Callable[..., Any]:
    @_unseen
    async def call(*args: Any, **kwargs: Any) -> Any:
        held, rest = split(args)
        return await _use(held, operation, rest, kwargs)

    return call


def _leave(proxy: Any, typ: Any, val: Any, tb: Any) -> Coroutine[Any, Any, Any]:
    args = () if typ is None else (_exception(typ, val, tb),)
    return _use(proxy._held, "__aexit__", args)


def make_stream(begin: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Makes an async generator function of one that has the owner begin, and returns a proxy."""

    @_unseen
    async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = await begin(*args, **kwargs)
        step = generator.__anext__()
        while True:
            try:
                value = await step
            except StopAsyncIteration:
                return
            try:
                sent = yield value
            except GeneratorExit:
                if hasattr(generator, "aclose"):
                    await generator.aclose()
                raise
            except BaseException as error:
                if not hasattr(generator, "athrow"):
                    raise
                step = generator.athrow(error)
            else:
                step = generator.__anext__() if sent is None else generator.asend(sent)

    return stream
