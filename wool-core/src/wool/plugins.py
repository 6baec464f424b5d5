"""How back-ends and observers plug in: hook specifications and the records they yield.

A distribution names a light module in one of the entry-point groups `wool.transports`,
`wool.discoveries`, `wool.serializers`, `wool.launchers` (the entry point's name is the back-end's
name) or `wool.plugins` (observers and translators of contexts). The module has hook implementations
marked with `hookimpl`::

    from wool.plugins import TransportPlugin, hookimpl

    @hookimpl
    def wool_transports():
        yield TransportPlugin(name="carrier", api=1, options=Options, factory=make)

The module is imported only when the back-end is chosen, and heavy imports belong in `factory`.
Observers are not chosen: those that are installed are told of every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pluggy

from wool.abc import Discovery, Launcher, Serializer, Transport, WorkerInfo

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = [
    "API",
    "BackEnd",
    "CallInfo",
    "ContextTranslator",
    "DiscoveryPlugin",
    "LauncherPlugin",
    "Outcome",
    "SerializerPlugin",
    "TransportPlugin",
    "hookimpl",
    "register",
]

API = 1
"""Version of the plug-in interface; a plug-in states the one it was written for."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker("wool")
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker("wool")


B_co = TypeVar("B_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackEnd(Generic[B_co]):
    """The record of a back-end; each kind has a class of its own.

    Attributes:
        name: how users choose it.
        api: the version of the plug-in interface it was written for, see `API`.
        options: a frozen dataclass whose fields, with defaults, are the back-end's settings.
        factory: makes the back-end from an instance of `options`.
        capabilities: words that Wool understands.
    """

    name: str
    api: int
    options: type[Any]
    factory: Callable[[Any], B_co]
    capabilities: frozenset[str] = frozenset()


class TransportPlugin(BackEnd[Transport]):
    """A way to carry messages; its name is also the scheme of its addresses.

    Capabilities: `"network"` (reaches other machines, secured by TLS as `wool.abc.Tls` says),
    `"local"` (this machine only), `"in-process"` (this process only), `"unix"` (takes addresses of
    Unix sockets, `name+unix:///path`; Wool sees to it that only its user gets at them), `"uid"`
    (its connections over Unix sockets know the user at the other end; without it only pools have
    workers there, by a secret).
    """

    __slots__ = ()


class DiscoveryPlugin(BackEnd[Discovery]):
    """A way to find workers.

    Capabilities: `"network"` (finds workers of other machines, so that workers which are announced
    here listen on a network), `"local"` (finds workers of this machine only).
    """

    __slots__ = ()


class SerializerPlugin(BackEnd[Serializer]):
    """A way to turn values into bytes; it has no capabilities yet."""

    __slots__ = ()


class LauncherPlugin(BackEnd[Launcher]):
    """A way to start workers; it has no capabilities yet."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInfo:
    """A call to a worker, or a stream, as its caller or the worker sees it.

    Attributes:
        id: unique among the calls of this process; on a worker, that of `wool.current_call()`.
        parent: the `id` that `wool.current_call()` has in the routine that made it; None if it was
            not made inside a routine.
        routine: module and qualified name of the routine, `module:name`.
        stream: whether it is an async generator.
        tags: what the worker must offer.
        waited: on a worker, seconds from the call's arrival until it began.
        notes: what observers keep with the call from its start to its end.
    """

    id: str
    parent: str | None
    routine: str
    stream: bool = False
    tags: frozenset[str] = frozenset()
    waited: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended, or a stream.

    Attributes:
        status: `"returned"`; `"raised"`, by the routine or by Wool; `"cancelled"`, by the caller,
            or because the stream was closed early.
        error: what the caller gets instead of a result.
        worker: who ran it; None if no worker did.
        seconds: from the moment it was made; on a worker, from the moment it began.
    """

    status: Literal["returned", "raised", "cancelled"]
    error: BaseException | None = None
    worker: WorkerInfo | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextTranslator:
    """Has a library's share of the context travel that does not as it is.

    Both functions run in the context they are about, on the event loop of user code: be quick.
    An error that they raise is logged once, and the translator is not used again.

    Attributes:
        name: tells it from others, and to users who `exclude` it.
        capture: returns what has to travel, in the context of a caller who is about to make a call
            or a step; None if there is nothing.
        restore: takes that, in the context of the routine, before the call or step begins there. It
            is not called while nothing has changed; None says that there is nothing any more.
    """

    name: str
    capture: Callable[[], bytes | None]
    restore: Callable[[bytes | None], None]


@hookspec
def wool_transports() -> Iterable[TransportPlugin]:  # type: ignore[empty-body]
    """Yields the transports of this module."""


@hookspec
def wool_discoveries() -> Iterable[DiscoveryPlugin]:  # type: ignore[empty-body]
    """Yields the discoveries of this module."""


@hookspec
def wool_serializers() -> Iterable[SerializerPlugin]:  # type: ignore[empty-body]
    """Yields the serializers of this module."""


@hookspec
def wool_launchers() -> Iterable[LauncherPlugin]:  # type: ignore[empty-body]
    """Yields the launchers of this module."""


@hookspec
def wool_context_translators() -> Iterable[ContextTranslator]:  # type: ignore[empty-body]
    """Yields what translates the contexts of a library, in callers and on workers."""


@hookspec
def wool_call_started(call: CallInfo) -> None:
    """A call is about to be given to a worker. Runs in the caller, on its event loop: be quick.

    An error that it raises is logged once, and the observer is not told of anything again.
    """


@hookspec
def wool_call_finished(call: CallInfo, outcome: Outcome) -> None:
    """A call has ended; see `wool_call_started`, which was given the same object."""


@hookspec
def wool_execution_started(call: CallInfo) -> None:
    """A call begins on this worker. Runs in the context of the routine, on its loop: be quick.

    Errors are treated as those of `wool_call_started`.
    """


@hookspec
def wool_execution_finished(call: CallInfo, outcome: Outcome) -> None:
    """The routine has ended; see `wool_execution_started`, which was given the same object."""


def register(plugin: object) -> ExitStack:
    """Registers a module or object with hook implementations, in this process only.

    It takes precedence over what is installed. Leaving what is returned as a context, or its
    `close()`, takes the plug-in back. Only a module can reach spawned workers.

    Raises:
        PluginError: it has hooks that Wool does not know, or with other parameters.
    """
    from wool._plugins import lookup  # it needs the records above

    return lookup.process().register(plugin)
