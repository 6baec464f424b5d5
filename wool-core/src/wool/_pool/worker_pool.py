"""`WorkerPool`: what users open and call into."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Literal, Never, NoReturn, Self

from wool import abc
from wool._client.client import Balancer
from wool._client.view import PoolView
from wool._plugins import lookup
from wool._pool.groups import Group
from wool._pool.plan import make_plan, module_names
from wool._pool.pool import OwnedPool
from wool._security.credentials import Credentials
from wool._settings.settings import Settings
from wool._worker.arguments import positive, several
from wool._worker.lifespan import Enter


class WorkerPool(PoolView):
    """Worker processes on this machine, for the routines called inside of `async with`.

    The pool may be opened again after it was closed. It can be used from any task, loop and thread
    of the process; `with pool.use():` says so where several are open. However it is left, and also
    if entering it fails or is cancelled, none of its processes remains.

    Args:
        size: how many workers to start and keep: one that dies is replaced. By default as many as
            this process may use CPUs or the launcher has room for, or none if there is a discovery.
            Or `(least, most)`: more than the least are started while calls wait that no worker
            can begin, and while somebody waits for them by `pool.wait(n)`.
        idle: seconds for which such a pool keeps workers that it does not need; 60 by default. A
            worker that has a call or an open stream, or an object that others use, stays.
        tags: labels the workers offer to routines that ask for them.
        discovery: finds more workers, which have to offer `tags`: the name of a discovery back-end,
            an instance of `wool.abc.Discovery`, or a list of addresses. The pool's own workers are
            announced there, so that other pools use them too.
        launcher: starts the pool's own workers: the name of a launcher back-end, by default
            `local`, or an instance of `wool.abc.Launcher`. Workers that are threads need none.
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
        memory_limit: bytes of memory that a worker's process may use, as resident; None is no
            limit. One that is seen to use more ends at once, and is replaced: its calls raise
            `WorkerLost`, which says so.
        environment: variables that its own workers have in addition to those of this process, from
            their very start, so that libraries see them which read variables such as
            `OMP_NUM_THREADS` when they are imported.
        groups: `wool.Group`s, instead of `size`, where its own workers are not all alike. Other
            arguments of the pool hold for those groups that say nothing else.
        lifespan: a function that returns an async context manager, such as one below
            `@contextlib.asynccontextmanager`. Each worker that the pool starts, also in place of
            another, enters it before it is called, and leaves it after its last call, within
            `cancel_grace` seconds. Its value is `wool.current_worker().state` in routines. A
            worker on which it raises is replaced like one that dies as it starts.
        quorum: how many workers must be ready before `async with` is entered; where there is no
            discovery, not more than the least there will be.
        quorum_timeout: seconds to wait for them, and for a worker that fits a call; 60 by default.
        context: `"off"` keeps all context variables where they are; by default they travel.
        exclude: context variables that stay where they are, as `module.name`.
        output: where what routines print and log goes: to the `"caller"`, to the standard streams
            of the `"worker"`, or nowhere (`"off"`). By default, the pool's own workers on this
            machine write to the streams of this process, and others send it to the caller.
        shutdown_timeout: seconds that running calls get to finish when the pool is left, 30 by
            default; they are cancelled at once if it is left with an exception.
        ship: modules, or names of modules and packages, that are sent to workers which this pool
            has not started, although they are installed here, or are found by names made at run
            time. The modules of your own project are sent anyway.
        by_reference: modules of your project that are not sent, because all workers have them.
        insecure: calls workers that a discovery finds on the loopback interface without
            credentials, as those of `Worker(insecure=True)`.

    Arguments not given are taken from the environment and `pyproject.toml`, see `docs/settings.md`.

    Raises:
        ConfigurationError, PluginError: an argument has no usable value.
        NoWorkersAvailable: on entering, if the quorum is not reached.
        AuthenticationError, VersionMismatch: the same, because workers were found, but refuse.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        *,
        idle: float | None = None,
        tags: Iterable[str] = (),
        discovery: str | abc.Discovery | Sequence[str] | None = None,
        launcher: str | abc.Launcher | None = None,
        transport: str | None = None,
        serializer: str | None = None,
        balancer: Balancer | None = None,
        credentials: Credentials | None = None,
        concurrency: int | None = None,
        memory_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        groups: Iterable[Group] | None = None,
        lifespan: Enter | None = None,
        quorum: int = 1,
        quorum_timeout: float | None = None,
        shutdown_timeout: float | None = None,
        ship: Iterable[str | ModuleType] | None = None,
        by_reference: Iterable[str | ModuleType] | None = None,
        context: Literal["auto", "off"] | None = None,
        exclude: Iterable[str] | None = None,
        output: Literal["auto", "caller", "worker", "off"] | None = None,
        insecure: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise TypeError(unknown_argument(next(iter(unknown)), type(self)))
        settings = Settings.read(lookup.names)
        core, origins = settings.core(
            size=size,
            idle=idle,
            discovery=discovery if isinstance(discovery, str) else None,
            launcher=launcher if isinstance(launcher, str) else None,
            transport=transport,
            serializer=serializer,
            concurrency=positive("concurrency", concurrency),
            memory_limit=positive("memory_limit", memory_limit),
            quorum_timeout=quorum_timeout,
            shutdown_timeout=shutdown_timeout,
            ship=module_names("ship", ship),
            by_reference=module_names("by_reference", by_reference),
            context=context,
            output=output,
            exclude=exclude if exclude is None else tuple(several("exclude", "names", exclude)),
        )
        alike = Group(
            size=size,
            tags=several("tags", "labels", tags),
            concurrency=concurrency,
            memory_limit=memory_limit,
            environment=environment or {},
            launcher=launcher,
            lifespan=lifespan,
        )
        plan = make_plan(
            settings,
            core,
            origins,
            alike,
            groups,
            discovery=discovery,
            balancer=balancer,
            credentials=credentials,
            quorum=quorum,
            insecure=insecure,
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
