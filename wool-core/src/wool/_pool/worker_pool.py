"""`WorkerPool`: starts workers on this machine, keeps them running, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from wool import abc
from wool._client.client import Balancer
from wool._client.current import ACTIVE, OPEN
from wool._client.link import Link
from wool._client.pool import Pool, rules_of
from wool._plugins import lookup
from wool._plugins.observers import Observer
from wool._pool.arguments import (
    call_options,
    check_shared,
    checked_size,
    module_names,
    pool_credentials,
    positive,
)
from wool._pool.membership import Membership
from wool._pool.peernews import PeerNews
from wool._pool.placement import Placement, place_alone, place_among_others
from wool._pool.supervisor import Supervisor
from wool._security.credentials import Credentials, SameUser
from wool._security.keyring import Keyring
from wool._serialization.travelling import LocalModules
from wool._session.session import Session
from wool._settings.blame import blaming
from wool._settings.resolving import dump
from wool._settings.settings import Settings
from wool._worker.arguments import labels, several
from wool._worker.discoveries import Chosen, choose_discovery, choose_transport
from wool._worker.process import WorkerProcess, describe_exit
from wool._worker.transports import Transports
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    ConfigurationError,
    NoWorkersAvailable,
    WoolError,
    WorkerLost,
)
from wool.plugins import TransportPlugin

if TYPE_CHECKING:
    from wool._worker.thread import WorkerThread


class WorkerPool(Pool):
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
        balancer: chooses the worker for a call instead of Wool: `balancer(tags, workers)` gets the
            tags asked for and what is known of the usable workers, and returns one of them.
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

    # While it is open:
    _supervisor: Supervisor | None = None
    _membership: Membership | None = None
    _watching: asyncio.Task[None] | None = None
    _placement: Placement | None = None
    _plugins: tuple[Observer, ...] = ()
    _before: Pool | None = None
    _closing = False

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
    ) -> None:
        self._settings = Settings.read(lookup.names)
        core, self._origins = self._settings.core(
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
        self._core = core
        if balancer is not None and not callable(balancer):
            raise ConfigurationError(f"balancer must be a function, not {balancer!r}")
        self._discovery = self._find_discovery(discovery)
        options = call_options(core, travels=self._discovery is not None)
        modules = LocalModules(rules_of(options))
        super().__init__(secrets.token_hex(8), options, modules, balancer=balancer)
        discovering = self._discovery is not None
        self._credentials = pool_credentials(
            credentials, self._settings, discovering=discovering, insecure=insecure
        )
        self._size = checked_size(core, discovering)
        self._tags = labels(tags)
        self.required: frozenset[str] = self._tags
        self._quorum = positive("quorum", quorum) or 1
        if self._discovery is None:
            self._quorum = min(self._quorum, self._size)
        self._transport_name = self._choose_transport()
        self._found: dict[str, WorkerInfo] = {}
        self._news = PeerNews(options)

    def _find_discovery(self, given: Any) -> Chosen | None:
        if isinstance(given, abc.Discovery):
            return Chosen(given)
        if given is None and self._stays_in_process():
            return None  # whoever debugs or tests a project that has one
        if given is None or isinstance(given, str):
            origin = self._origins["discovery"]
            return choose_discovery(self._settings, self._core.discovery, origin=origin)
        addresses = several("discovery", "addresses, or a name", given)
        return choose_discovery(self._settings, "static", {"addresses": addresses})

    def _stays_in_process(self) -> bool:
        """Whether own workers live in this process, so that a discovery that is set is moot."""
        name = self._core.transport
        if name is None or self._core.discovery is None or self._core.size == 0:
            return False
        with blaming(self._origins["transport"]):
            return "in-process" in lookup.transport(name).plugin.capabilities

    def _choose_transport(self) -> str:
        return choose_transport(self._core.transport, self._discovery if self._size else None)

    # Opening and closing ------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if not self.closed or self._closing:
            raise WoolError("the pool is open already; make another one to have two")
        loop = self._loop = asyncio.get_running_loop()
        with blaming(self._origins["transport"]):
            plugin = lookup.transport(self._transport_name).plugin
        in_process = "in-process" in plugin.capabilities
        # Interpreters take a while to start; meanwhile back-ends are loaded here.
        early: list[WorkerProcess] = []
        try:
            early.extend(WorkerProcess() for _ in range(0 if in_process else self._size))
            self._load()
            self._supervisor = Supervisor(
                self._size,
                self._start_thread if in_process else self._start_process,
                tags=self._tags,
                serializer_name=self.serializer_name,
                discovery=self._discovery,
                on_change=self._merge,
                on_end=self.died,
                on_failure=self._on_no_workers,
            )
            self._supervisor.begin(early)
            if self._discovery is not None:
                self._membership = Membership(
                    self._discovery,
                    self._tags,
                    self.serializer_name,
                    self._on_found,
                    self._on_no_discovery,
                )
                self._watching = loop.create_task(self._membership.run())
            await self.wait(self._quorum, timeout=self.options.quorum_timeout)
        except BaseException:
            for process in early:
                process.kill()
            await self._close(graceful=False)
            await asyncio.gather(*(process.wait() for process in early))
            raise
        self._before = ACTIVE.get()
        ACTIVE.set(self)
        OPEN.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.closed:
            return  # it has been left already
        OPEN.remove(self)
        self._step_out()
        await self._close(graceful=kind is None)

    def _step_out(self) -> None:
        """Gives the context back what it had before.

        The pool may be left before others that were entered in it, or in another context.
        """
        inner = ACTIVE.get()
        seen: set[Pool] = {self}
        if inner is self:
            ACTIVE.set(self._before)
        while isinstance(inner, WorkerPool) and inner not in seen:
            seen.add(inner)
            if inner._before is self:
                inner._before = self._before
            inner = inner._before
        self._before = None

    def _load(self) -> None:
        """Makes the back-ends, and decides how workers are reached and by whom."""
        transports = self._transports = Transports({}, self._settings)
        plugin, _ = transports.get(self._transport_name)
        with blaming(self._origins["serializer"]):
            serializer = lookup.serializer(self._core.serializer)
        options, _ = self._settings.options(serializer.plugin.name, serializer.plugin.options)
        self._serializer = serializer.make(options)
        if self._size and "in-process" not in plugin.capabilities:
            given = {name: module for name, (module, _) in transports.export().items()}
            check_shared({**given, serializer.plugin.name: serializer.module})
        self._news.forget()
        plugins = self._plugins = lookup.companions()
        self.follow(plugins)
        placement = self._placement = self._place(plugin)
        keyring = placement.keyring
        self._config: dict[str, Any] = {
            "transport": plugin.name,
            "transports": transports.export(),
            "serializer": (serializer.plugin.name, serializer.module, dump(options)),
            "keyring": keyring.export(),
            "tags": sorted(self._tags),
            "concurrency": self._core.concurrency,
            "drain_timeout": self._core.drain_timeout,
            "loop": self._core.loop,
            "pool": self.id,
            "observers": [o.module for o in plugins if o.module and (o.listens or o.translators())],
        }
        self.opened(transports.routes, keyring, serializer.plugin.name, self._serializer)

    def _place(self, plugin: TransportPlugin) -> Placement:
        if self._discovery is None:
            return place_alone(plugin, self._credentials)
        if not self._size:
            return Placement(keyring=Keyring(SameUser(), self._credentials))
        return place_among_others(plugin, self._discovery, self._credentials)

    async def _close(self, *, graceful: bool) -> None:
        self.closed = self._closing = True
        try:
            if graceful:
                await self._finish_calls()
        finally:
            supervisor, watching = self._supervisor, self._watching
            self._watching = None
            if watching is not None:
                watching.cancel()
            if supervisor is not None:
                supervisor.stop()
            try:
                await self.close_clients()
                if watching is not None:
                    await asyncio.gather(watching, return_exceptions=True)
            finally:
                try:
                    if supervisor is not None:
                        await supervisor.aclose()
                finally:
                    if self._placement is not None:
                        self._placement.discard()
                    self._found = {}
                    self.members: dict[str, WorkerInfo] = {}
                    self._closing = False

    async def _finish_calls(self) -> None:
        """Waits for the calls that are out."""
        waits = [
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.wait_quiet(), loop))
            for loop, client in list(self._clients.items())
            if loop.is_running()
        ]
        if waits:
            _, late = await asyncio.wait(waits, timeout=self._core.shutdown_timeout)
            for wait in late:
                wait.cancel()

    # Workers ------------------------------------------------------------------------------------

    def _start_process(self, ident: str, early: WorkerProcess | None) -> WorkerProcess:
        process = early or WorkerProcess()
        assert self._placement is not None
        process.configure({**self._config, "id": ident, "listen": self._placement.address()})
        return process

    def _start_thread(self, ident: str, early: WorkerProcess | None) -> WorkerThread:
        # What a worker is made of is loaded only where it runs in this process.
        from wool._worker.service import Setup
        from wool._worker.thread import WorkerThread

        setup = Setup(
            id=ident,
            tags=self._tags,
            transport=self._transport_name,
            transports=self._transports,
            keyring=self.keyring,
            serializer=self._serializer,
            serializer_name=self.serializer_name,
            listen=None,
            observers=self._plugins,
            parent=self.id,
        )
        return WorkerThread(setup, self._core.concurrency)

    def _on_found(self, found: dict[str, WorkerInfo]) -> None:
        """The discovery knows of other workers than before."""
        if not self.closed:
            self._found = found
            self._merge()

    def _on_no_discovery(self, error: Exception) -> None:
        """The discovery fails; if that is how it is configured, nobody need wait for it."""
        mistaken = isinstance(error, ConfigurationError)
        if mistaken and not self.members and not self._size and not self.closed:
            self.fail(error)

    def _merge(self) -> None:
        """Makes the own workers and those that were found the members."""
        own = {} if self._supervisor is None else self._supervisor.workers
        places = {info.address for info in own.values()}
        found = {key: info for key, info in self._found.items() if info.address not in places}
        self.own: frozenset[str] = frozenset(own)
        self.set_members({**found, **own})

    @property
    def complete(self) -> bool:
        """Whether there will never be other workers than those that were found first."""
        found = self._discovery
        return found is not None and found.discovery.complete and not self._size

    def unready(self, tags: frozenset[str] = frozenset()) -> str:
        """Says, besides, what the discovery has found."""
        said = super().unready(tags)
        return said if self._membership is None else f"; {self._membership.summary()}{said}"

    def reasons(self, tags: frozenset[str]) -> dict[str, list[str]]:
        """Returns the addresses of the workers that cannot be called, by the reasons for it."""
        unfit = {} if self._membership is None else self._membership.reasons()
        return {**super().reasons(tags), **unfit}

    def _on_no_workers(self, error: NoWorkersAvailable) -> None:
        """Own workers cannot be started; if there are no others, calls need not wait."""
        if not self.members:
            self.fail(error)

    def on_drain(self, worker: WorkerInfo) -> None:
        """A worker that drains is replaced at once, while its last calls run."""
        if self._supervisor is not None and not self.closed:
            self._supervisor.replace(worker.id)

    # What clients report ------------------------------------------------------------------------

    def on_connected(self, link: Link, session: Session) -> None:
        """Tells a worker of its peers as soon as there is a session."""
        super().on_connected(link, session)
        session.send(self._news.latest(self._clients.get(self._loop)))
        with contextlib.suppress(RuntimeError):  # that loop has ended
            self._loop.call_soon_threadsafe(self._tell_peers_soon)

    def _tell_peers_soon(self) -> None:
        client = self._clients.get(self._loop)
        if client is not None and not self.closed:
            self._news.tell_soon(client)

    def set_members(self, members: dict[str, WorkerInfo]) -> None:
        """Replaces the workers, and tells them of one another."""
        super().set_members(members)
        if self.closed:
            return
        client = self.client()
        client.update()
        for link in client.links.values():
            if link.own:
                link.connect()  # so that it learns of the others; a call dials them if need be
        self._news.tell(client)

    async def explain_loss(self, worker: WorkerInfo, error: Exception) -> WorkerLost:
        """Returns the error for calls at a worker whose connection ended, with its exit code."""
        code = None if self._supervisor is None else await self._supervisor.exit_code(worker.id)
        if code is None:
            return await super().explain_loss(worker, error)
        return WorkerLost(
            f"worker {worker.pid} on {worker.host} {describe_exit(code)}",
            exitcode=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            host=worker.host,
            pid=worker.pid,
        )
