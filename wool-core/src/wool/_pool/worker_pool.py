"""`WorkerPool`: what users open and call into."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Any, Literal, Never, NoReturn, Self, cast

from wool import abc
from wool._client.client import Balancer
from wool._client.view import PoolView
from wool._code.rules import OUR_OWN, find_spec
from wool._code.sources import read_text
from wool._plugins import lookup
from wool._pool.pool import OwnedPool, Plan
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Credentials, Insecure
from wool._settings.model import Core
from wool._settings.settings import Settings, blaming
from wool._worker.arguments import checked_credentials, labels, several
from wool._worker.backends import ChosenDiscovery, choose_discovery, choose_transport
from wool._worker.lifespan import Enter, checked_lifespan
from wool._worker.placement import credentials_of
from wool.abc import Discovery
from wool.exceptions import ConfigurationError


class WorkerPool(PoolView):
    """Worker processes on this machine, for the routines called inside of `async with`.

    The pool may be opened again after it was closed. It can be used from any task, loop and thread
    of the process; `with pool.use():` says so where several are open. However it is left, and also
    if entering it fails or is cancelled, none of its processes remains.

    Args:
        size: how many workers to start and keep: one that dies is replaced. By default as many as
            this process may use CPUs, or none if there is a discovery.
        tags: labels the workers offer to routines that ask for them.
        discovery: finds more workers, which have to offer `tags`: the name of a discovery back-end,
            an instance of `wool.abc.Discovery`, or a list of addresses. The pool's own workers are
            announced there, so that other pools use them too.
        transport: name of the transport back-end, `unix` by default.
        serializer: name of the serializer back-end, `cloudpickle` by default.
        balancer: chooses the worker for a call instead of Wool: `balancer(call, workers)` gets what
            is known of the call (`wool.plugins.CallInfo`) and of the usable workers that offer its
            tags (`WorkerInfo`), and returns one of those. It must not wait for anything.
        credentials: what workers and callers authenticate with on a transport that leaves this
            machine, `wool.Credentials`; where there is a discovery, by default those of the
            settings. Without, the pool's own workers can be reached by this pool alone, over Unix
            sockets where the transport knows them.
        concurrency: how many calls one worker runs at once; None is no limit, as in asyncio.
        lifespan: a function that returns an async context manager, such as one below
            `@contextlib.asynccontextmanager`. Each worker that the pool starts, also in place of
            another, enters it before it is called, and leaves it after its last call, within
            `cancel_grace` seconds. What it yields is `wool.current_worker().state` in routines. A
            worker on which it raises is replaced like one that dies as it starts.
        quorum: how many workers must be ready before `async with` is entered.
        quorum_timeout: seconds to wait for them, and for a worker that fits a call; 60 by default.
        context: `"off"` keeps all context variables where they are; by default they travel.
        exclude: context variables that stay where they are, as `module.name`.
        shutdown_timeout: seconds that running calls get to finish when the pool is left, 30 by
            default; they are cancelled at once if it is left with an exception.
        ship: modules, or names of modules and packages, that are sent to workers which this pool
            has not started, although they are installed here, or are found by names made at run
            time. The modules of your own project are sent anyway.
        by_reference: modules of your project that are not sent, because all workers have them.
        insecure: calls workers that a discovery finds on the loopback interface without
            credentials, as those of `Worker(insecure=True)`.

    What is not given is taken from the environment and `pyproject.toml`, see `docs/settings.md`.

    Raises:
        ConfigurationError, PluginError: an argument has no usable value.
        NoWorkersAvailable: on entering, if the quorum is not reached.
        AuthenticationError, VersionMismatch: the same, because workers were found, but refuse.
    """

    def __init__(
        self,
        size: int | None = None,
        *,
        tags: Iterable[str] = (),
        discovery: str | abc.Discovery | Sequence[str] | None = None,
        transport: str | None = None,
        serializer: str | None = None,
        balancer: Balancer | None = None,
        credentials: Credentials | None = None,
        concurrency: int | None = None,
        lifespan: Enter | None = None,
        quorum: int = 1,
        quorum_timeout: float | None = None,
        shutdown_timeout: float | None = None,
        ship: Iterable[str | ModuleType] | None = None,
        by_reference: Iterable[str | ModuleType] | None = None,
        context: Literal["auto", "off"] | None = None,
        exclude: Iterable[str] | None = None,
        insecure: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise TypeError(unknown_argument(next(iter(unknown)), type(self)))
        settings = Settings.read(lookup.names)
        core, origins = settings.core(
            size=size,
            discovery=discovery if isinstance(discovery, str) else None,
            transport=transport,
            serializer=serializer,
            concurrency=positive("concurrency", concurrency),
            quorum_timeout=quorum_timeout,
            shutdown_timeout=shutdown_timeout,
            ship=module_names("ship", ship),
            by_reference=module_names("by_reference", by_reference),
            context=context,
            exclude=exclude if exclude is None else tuple(several("exclude", "names", exclude)),
        )
        chosen = checked_balancer(balancer)
        found = pool_discovery(discovery, settings, core, origins)
        discovering = found is not None
        offered = labels(tags)
        options = call_options(core, offered, travels=discovering)
        known = pool_credentials(credentials, settings, discovering=discovering, insecure=insecure)
        workers = checked_size(core, discovering)
        enough = positive("quorum", quorum) or 1
        plan = Plan(
            settings=settings,
            core=core,
            origins=origins,
            size=workers,
            tags=offered,
            discovery=found,
            transport=choose_transport(core.transport, found if workers else None),
            credentials=known,
            balancer=chosen,
            options=options,
            quorum=enough if discovering else min(enough, workers),
            lifespan=checked_lifespan(lifespan),
        )
        self._pool: OwnedPool
        super().__init__(OwnedPool(plan, self))

    def __enter__(self) -> NoReturn:
        raise TypeError("a pool is entered with `async with wool.WorkerPool() as pool:`")

    def __exit__(self, *args: object) -> NoReturn:
        raise TypeError("a pool is left by its `async with`")

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.leave(graceful=kind is None)


def checked_size(core: Core, discovering: bool) -> int:
    """Returns how many workers a pool starts.

    Raises:
        ConfigurationError: it would have none, and find none.
    """
    if core.size is None:
        return 0 if discovering else _cpus()
    if core.size == 0 and not discovering:
        raise ConfigurationError(
            "size=0 leaves the pool without workers: give it a size, or a discovery that finds "
            "workers elsewhere"
        )
    return core.size


def _cpus() -> int:
    """Returns how many CPUs this process may use, where the system tells that."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_balancer(given: Any) -> Balancer | None:
    """Returns it, or raises ConfigurationError."""
    if given is not None and not callable(given):
        raise ConfigurationError(f"balancer must be a function, not {given!r}")
    return cast("Balancer | None", given)


def pool_discovery(
    given: Any, settings: Settings, core: Core, origins: Mapping[str, str]
) -> ChosenDiscovery | None:
    """Returns what finds workers that the pool has not started; None: nothing.

    Raises:
        ConfigurationError, PluginError: there is no such discovery, or it cannot be made.
    """
    if isinstance(given, Discovery):
        return ChosenDiscovery(given)
    if given is None and _stays_in_process(core, origins):
        return None  # whoever debugs or tests a project that has one
    if given is None or isinstance(given, str):
        return choose_discovery(settings, core.discovery, origin=origins["discovery"])
    addresses = several("discovery", "addresses, or a name", given)
    return choose_discovery(settings, "static", {"addresses": addresses})


def _stays_in_process(core: Core, origins: Mapping[str, str]) -> bool:
    """Whether own workers live in this process, so that a discovery that is set is moot."""
    if core.transport is None or core.discovery is None or core.size == 0:
        return False
    with blaming(origins["transport"]):
        return "in-process" in lookup.transport(core.transport).plugin.capabilities


def pool_credentials(
    given: Any, settings: Settings, *, discovering: bool, insecure: bool
) -> Authenticator | None:
    """Returns what a pool shows to workers on a network; None: nothing.

    Raises:
        ConfigurationError: it is of no use, or does not go together.
    """
    credentials = checked_credentials(given)
    if not insecure:
        return credentials_of(settings) if credentials is None and discovering else credentials
    if credentials is not None:
        raise ConfigurationError("insecure=True along with credentials: leave one of them out")
    if not discovering:
        raise ConfigurationError(
            "insecure=True is for workers that a discovery finds, and there is none: a pool's own "
            "workers are safe without credentials, so leave it out"
        )
    warnings.warn(
        "a pool calls workers without authentication: whoever on this machine listens at their "
        "addresses can run code as you",
        RuntimeWarning,
        stacklevel=3,
    )
    return Insecure()


def positive(name: str, value: Any) -> int | None:
    """Returns a positive number or None, or raises ConfigurationError that names the argument."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{name} must be a positive whole number, not {value!r}")
    return value


def module_names(argument: str, given: Iterable[str | ModuleType] | None) -> list[str] | None:
    """Returns the names of modules that were given as such or by name.

    Raises:
        ConfigurationError: something else was given.
    """
    if given is None:
        return None
    if isinstance(given, (str, ModuleType)):
        raise ConfigurationError(f"{argument} must be a list of modules, not {given!r} alone")
    items = several(argument, "modules", given)
    names: list[Any] = [getattr(item, "__name__", item) for item in items]
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"{argument} must name modules, not {name!r}")
    return names


ALSO_CALLED = {
    "max_workers": "size",
    "num_workers": "size",
    "n_workers": "size",
    "n_jobs": "size",
    "processes": "size",
    "workers": "size",
    "timeout": "quorum_timeout",
    "labels": "tags",
    "backend": "transport",
}
"""Arguments of other pools, and what they are called here."""


def unknown_argument(name: str, cls: type) -> str:
    """Says that a class takes no such argument, and which one may be meant."""
    known = [known for known in inspect.signature(cls).parameters if known != "unknown"]
    close = ALSO_CALLED.get(name) or next(iter(difflib.get_close_matches(name, known)), None)
    hint = f". Did you mean {close}=?" if close else f". It takes {', '.join(known)}"
    return f"{cls.__name__} takes no argument {name!r}{hint}"


def call_options(core: Core, tags: frozenset[str], *, travels: bool) -> CallOptions:
    """Returns what holds for all calls of a pool.

    Args:
        tags: those of its own workers.
        travels: whether there may be other workers, which lack modules of the caller.

    Raises:
        ConfigurationError: modules are to be sent that cannot be, or are not to be too.
    """
    _check_modules(core)
    return CallOptions(
        quorum_timeout=core.quorum_timeout,
        cancel_grace=core.cancel_grace,
        travels=travels,
        ship=list(core.ship),
        by_reference=list(core.by_reference),
        context=core.context != "off",
        exclude=list(core.exclude),
        offered=None if travels else sorted(tags),
    )


def _check_modules(core: Core) -> None:
    for name in core.ship:
        if name in core.by_reference:
            raise ConfigurationError(f"{name} is both in ship and in by_reference")
        top = name.partition(".")[0]
        if top in OUR_OWN or top in sys.stdlib_module_names:
            raise ConfigurationError(f"{name} is in ship, but every worker has it")
        if name == "__main__":
            raise ConfigurationError("__main__ is in ship, but what it defines is sent anyway")
        spec = find_spec(name)
        if spec is None:
            raise ConfigurationError(f"{name} is in ship, but there is no such module here")
        if read_text(spec) is None:
            raise ConfigurationError(
                f"{name} is in ship, but is no Python source that could be sent: install it on "
                "the workers"
            )
