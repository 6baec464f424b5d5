"""`WorkerPool`: what users open and call into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType, TracebackType
from typing import Literal, Never, NoReturn, Self

from wool import abc
from wool._client.client import Balancer
from wool._client.view import PoolView
from wool._plugins import lookup
from wool._pool.arguments import (
    call_options,
    checked_balancer,
    checked_size,
    module_names,
    pool_credentials,
    pool_discovery,
    positive,
    unknown_argument,
)
from wool._pool.owned_pool import OwnedPool
from wool._pool.plan import Plan
from wool._security.credentials import Credentials
from wool._settings.settings import Settings
from wool._worker.arguments import labels, several
from wool._worker.discoveries import choose_transport


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
