"""Objects that live on a worker, and the handles through which all processes use them.

A worker keeps such an object by a key, as it keeps what it lends, for as long as a stream of its
maker is open. A use is an ordinary call that is for this one worker, so it goes there directly,
whoever makes it. The async generators of the object are lent by what that call returns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from inspect import isasyncgen
from typing import Any, ParamSpec, TypeVar, cast

from wool._client.current import ACTIVE, choose_elsewhere, choose_pool, current_call
from wool._client.routine import routine
from wool._peer.proxies import make_stream
from wool._values.references import EXPORTS, interface_of
from wool._workerinfo import WorkerInfo

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def remote(
    make: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> AsyncGenerator[T, None]:
    """Makes an object on a worker, and gives a handle that has its async methods and generators.

        async with wool.remote(Counter, 0) as counter:
            await counter.add(1)

    The object stays on that worker until the block is left, and is one, whoever uses it. The handle
    travels by value: each process that has it calls the worker directly. Methods run there as
    routines do, on the event loop; they may overlap, as those of a local object do. With no pool
    open, the object is made here and given as it is.

    Args:
        make: a class, or a function that returns an object; it travels as functions do.
        args, kwargs: the arguments that it is called with, there.

    Raises:
        TypeError: the object has no async methods.
        ReferenceError: by a method: the block has been left.
        WorkerLost, WorkerStopped: by a method: the worker is gone, and the object with it.
        WoolError, Exception: what a call of a routine raises, and what `make` raises.
    """
    if choose_pool() is None:
        yield make(*args, **kwargs)
        return
    async with aclosing(remote_object(make, args, kwargs)) as kept:
        yield cast("T", await anext(kept))


@routine
async def remote_object(
    make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Handle, None]:
    """Makes an object, and keeps it for as long as this stream is open."""
    value, call = make(*args, **kwargs), current_call()
    look = interface_of(value)
    methods = tuple(m for m in look.methods if m == "__call__" or m.lstrip("*")[0] != "_")
    if not methods:
        raise TypeError(
            f"wool.remote() makes an object that is used from afar, and {look.name} has no async "
            "methods: only what is awaited can be done elsewhere. Write `async def`"
        )
    export = EXPORTS.export(value, None)
    assert call is not None
    yield Handle(call.worker, export.key, look.name, methods)


@routine
async def remote_method(
    key: bytes, name: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls a method of an object that is kept here; `wool ps` shows the call by this name."""
    export = EXPORTS.own(key)
    if export is None:
        raise ReferenceError(
            f"{method}() of {name} is called after its `async with wool.remote(…)` was left: the "
            "object is gone"
        )
    used = getattr(export.value, method)(*args, **kwargs)
    return used if isasyncgen(used) else await used


class Handle:
    """Stands for an object on a worker; travels by value."""

    __slots__ = ("_key", "_methods", "_name", "_worker")

    def __init__(self, worker: WorkerInfo, key: bytes, name: str, methods: tuple[str, ...]) -> None:
        self._worker = worker
        self._key = key
        self._name = name
        self._methods = methods

    def __reduce__(self) -> tuple[Any, ...]:
        return Handle, (self._worker, self._key, self._name, self._methods)

    def __repr__(self) -> str:
        return f"<handle of {self._name} on worker {self._worker.pid} on {self._worker.host}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in self._methods:
            return partial(self._call, name)
        if f"*{name}" in self._methods:
            return make_stream(partial(self._call, name))
        usable = ", ".join(method.lstrip("*") for method in self._methods)
        raise AttributeError(
            f"the handle of {self._name} has no {name!r}: of an object on a worker, only "
            f"async methods and generators can be used, which are {usable}",
            name=name,
            obj=self,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__("__call__")(*args, **kwargs)

    async def _call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        before = ACTIVE.set(choose_elsewhere().only(self._worker))
        try:
            return await remote_method(self._key, self._name, method, args, kwargs)
        finally:
            ACTIVE.reset(before)
