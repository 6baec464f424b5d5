"""`OwnedPool`: starts workers, keeps them running, finds others, and stops its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wool._client.client import Balancer, Client
from wool._client.current import ACTIVE, OPEN, ActivePool
from wool._client.peer_pool import peers
from wool._client.pool import Pool, rules_of
from wool._client.poolbase import PoolBase
from wool._client.view import PoolView
from wool._code.modules import Modules
from wool._peer.session import Session
from wool._plugins import lookup
from wool._plugins.observers import Observer
from wool._pool.membership import Membership
from wool._pool.supervisor import OwnWorker, Supervisor
from wool._protocol import frames as f
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Keyring, SameUser
from wool._settings.model import Core
from wool._settings.settings import Settings, blaming
from wool._settings.values import dump
from wool._worker.backends import ChosenDiscovery, Transports
from wool._worker.placement import Placement, place_alone, place_among_others
from wool._worker.process import WorkerProcess, describe_exit
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    ConfigurationError,
    NoWorkersAvailable,
    PluginError,
    WoolError,
    WorkerLost,
)
from wool.plugins import TransportPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments and settings of a pool, checked.

    Attributes:
        origins: where the values of `core` come from.
        size: how many workers it starts.
        discovery: what finds others, if anything does.
        credentials: what is shown to workers on a network, if anything is.
        quorum: how many workers must be ready before it is open.
    """

    settings: Settings
    core: Core
    origins: Mapping[str, str]
    size: int
    tags: frozenset[str]
    discovery: ChosenDiscovery | None
    transport: str
    credentials: Authenticator | None
    balancer: Balancer | None
    options: CallOptions
    quorum: int


GATHERING = 0.02
"""Seconds in which news of workers is gathered before others are told."""


class PeerNews:
    """Tells the workers that a client is connected to of one another, when there is news.

    Args:
        options: what holds for all calls of the pool; they are told along with it.
    """

    def __init__(self, options: f.CallOptions) -> None:
        self._latest = f.Peers([], options)
        self._told: f.Peers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()  # sessions are opened on any thread

    def forget(self) -> None:
        """Nobody knows anything: the pool has been opened anew."""
        self._told = self._timer = None

    def latest(self, client: Client | None) -> f.Peers:
        """Returns the workers that a client is connected to, or may be at any time."""
        links = [] if client is None else list(client.links.values())
        workers = peers(link.info for link in links)
        with self._lock:
            before = self._latest
            if workers != before.workers:
                self._latest = f.Peers(workers, before.options, edition=before.edition + 1)
            return self._latest

    def tell(self, client: Client) -> None:
        """Tells them now, on the loop of the client."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        news = self.latest(client)
        if news != self._told and not client.closed:
            self._told = news
            for session in client.sessions():
                session.send(news)

    def tell_soon(self, client: Client) -> None:
        """Tells them in a moment: where hundreds are connected, more will be by then."""
        if self._timer is None:
            self._timer = client.loop.call_later(GATHERING, self.tell, client)


class OwnedPool(Pool):
    """A pool in the process that has opened it.

    Args:
        view: the `WorkerPool` that it belongs to.
    """

    # While it is open:
    _supervisor: Supervisor | None = None
    _membership: Membership | None = None
    _watching: asyncio.Task[None] | None = None
    _placement: Placement | None = None
    _plugins: tuple[Observer, ...] = ()
    _before: ActivePool | None = None
    _opening = False
    _closing = False

    def __init__(self, plan: Plan, view: PoolView) -> None:
        ident, rules, around = secrets.token_hex(8), rules_of(plan.options), ACTIVE.get()
        inside = isinstance(around, PoolBase)  # of a routine, or of another pool
        modules = around.modules.within(ident, rules) if inside else Modules(rules)
        super().__init__(ident, plan.options, modules, balancer=plan.balancer, view=view)
        self._plan = plan
        self.required: frozenset[str] = plan.tags
        self._found: dict[str, WorkerInfo] = {}
        self._news = PeerNews(plan.options)

    # Opening and closing ------------------------------------------------------------------------

    async def open(self) -> None:
        """Starts workers, waits for the quorum and makes it the pool of this context.

        Raises:
            WoolError: it is open.
            NoWorkersAvailable: the quorum is not reached; and what else `WorkerPool` says.
        """
        with self._lock:  # two threads may try
            if not self.closed or self._opening or self._closing:
                raise WoolError("the pool is open already; make another one to have two")
            self._opening = True
        try:
            await self._open()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise NoWorkersAvailable(
                f"the workers of the pool cannot be started: {error.strerror}. Each takes some "
                "files: raise the limit (`ulimit -n`), close what is open, or make the pool smaller"
            ) from error
        finally:
            self._opening = False
        self._before = ACTIVE.get()
        ACTIVE.set(self)
        OPEN.add(self)

    async def _open(self) -> None:
        plan = self._plan
        self._loop = asyncio.get_running_loop()
        with blaming(plan.origins["transport"]):
            plugin = lookup.transport(plan.transport).plugin
        in_process = "in-process" in plugin.capabilities
        # Interpreters take a while to start; meanwhile back-ends are loaded here.
        early: list[WorkerProcess] = []
        try:
            early.extend(WorkerProcess() for _ in range(0 if in_process else plan.size))
            self._load()
            self._start(early, in_process=in_process)
            self._find()
            await self.wait(plan.quorum, timeout=plan.options.quorum_timeout)
        except BaseException:
            for process in early:
                process.kill()
            await self._close(graceful=False)
            await asyncio.gather(*(process.wait() for process in early))
            raise

    async def leave(self, *, graceful: bool) -> None:
        """Stops it and its workers; idempotent.

        Args:
            graceful: let running calls finish, within their time.
        """
        if self.closed:
            return
        OPEN.remove(self)
        self._step_out()
        await self._close(graceful=graceful)

    def _step_out(self) -> None:
        """Gives the context back what it had before.

        The pool may be left before others that were entered in it, or in another context.
        """
        inner = ACTIVE.get()
        seen: set[ActivePool] = {self}
        if inner is self:
            ACTIVE.set(self._before)
        while isinstance(inner, OwnedPool) and inner not in seen:
            seen.add(inner)
            if inner._before is self:
                inner._before = self._before
            inner = inner._before
        self._before = None

    def _load(self) -> None:
        """Makes the back-ends, and decides how workers are reached and by whom."""
        plan = self._plan
        transports = self._transports = Transports({}, plan.settings)
        plugin, _ = transports.get(plan.transport)
        with blaming(plan.origins["serializer"]):
            serializer = lookup.serializer(plan.core.serializer)
        options, _ = plan.settings.options(serializer.plugin.name, serializer.plugin.options)
        self._serializer = serializer.make(options)
        if plan.size and "in-process" not in plugin.capabilities:
            given = {name: module for name, (module, _) in transports.export().items()}
            _check_shared({**given, serializer.plugin.name: serializer.module})
        self._news.forget()
        plugins = self._plugins = lookup.companions(plan.core.observers)
        self.follow(plugins)
        placement = self._placement = self._place(plugin)
        keyring = placement.keyring
        self._config: dict[str, Any] = {
            "transport": plugin.name,
            "transports": transports.export(),
            "serializer": (serializer.plugin.name, serializer.module, dump(options)),
            "keyring": keyring.export(),
            "tags": sorted(plan.tags),
            "concurrency": plan.core.concurrency,
            "drain_timeout": plan.core.drain_timeout,
            "cancel_grace": plan.core.cancel_grace,
            "loop": plan.core.loop,
            "pool": self.id if self.modules.imported_alike else "",
            "observers": [o.module for o in plugins if o.module and o.useful],
        }
        self.opened(transports.routes, keyring, serializer.plugin.name, self._serializer)

    def _start(self, early: list[WorkerProcess], *, in_process: bool) -> None:
        """Has own workers started, and kept."""
        plan, placement = self._plan, self._placement
        assert placement is not None
        self._supervisor = Supervisor(
            plan.size,
            self._start_thread if in_process else self._start_process,
            tags=plan.tags,
            serializer_name=self.serializer_name,
            discovery=plan.discovery,
            cancel_grace=plan.core.cancel_grace,
            on_change=self._merge,
            on_end=self.died,
            on_failure=self._on_no_workers,
            on_abandoned=placement.discard,  # a pool that is never left leaves nothing, either
        )
        self._supervisor.begin(early)

    def _find(self) -> None:
        """Has others found, from now on."""
        plan = self._plan
        if plan.discovery is not None:
            self._membership = Membership(
                plan.discovery,
                plan.tags,
                self.serializer_name,
                self._on_found,
                self._on_no_discovery,
            )
            self._watching = self._loop.create_task(self._membership.run())

    def _place(self, plugin: TransportPlugin) -> Placement:
        plan = self._plan
        if plan.discovery is None:
            return place_alone(plugin, plan.credentials)
        if not plan.size:
            return Placement(keyring=Keyring(SameUser(), plan.credentials))
        return place_among_others(plugin, plan.discovery, plan.credentials)

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
        waits: list[asyncio.Future[None]] = []
        for loop, client in list(self._clients.items()):
            quiet = client.wait_quiet()
            try:
                if loop.is_running():
                    waiting = asyncio.run_coroutine_threadsafe(quiet, loop)
                    waits.append(asyncio.wrap_future(waiting))
                    continue
            except RuntimeError:  # it has just been closed
                pass
            quiet.close()
        if waits:
            _, late = await asyncio.wait(waits, timeout=self._plan.core.shutdown_timeout)
            for wait in late:
                wait.cancel()

    # Workers ------------------------------------------------------------------------------------

    def _start_process(self, ident: str, early: WorkerProcess | None) -> WorkerProcess:
        process = early or WorkerProcess()
        assert self._placement is not None
        process.configure({**self._config, "id": ident, "listen": self._placement.address()})
        return process

    def _start_thread(self, ident: str, early: WorkerProcess | None) -> OwnWorker:
        # What a worker is made of is loaded only where it runs in this process.
        from wool._worker.service import Setup
        from wool._worker.thread import WorkerThread

        setup = Setup(
            id=ident,
            tags=self._plan.tags,
            transport=self._plan.transport,
            transports=self._transports,
            keyring=self.keyring,
            serializer=self._serializer,
            serializer_name=self.serializer_name,
            listen=None,
            observers=self._plugins,
            parent=self.id,
        )
        return WorkerThread(setup, self._plan.core.concurrency)

    def _on_found(self, found: dict[str, WorkerInfo]) -> None:
        """The discovery knows of other workers than before."""
        if not self.closed:
            self._found = found
            self._merge()

    def _on_no_discovery(self, error: Exception) -> bool:
        """The discovery fails; if that is how it is configured, nobody need wait for it."""
        mistaken = isinstance(error, ConfigurationError)
        if mistaken and not self.members and not self._plan.size and not self.closed:
            self.fail(error)
            return True
        return False

    def _merge(self) -> None:
        """Makes the own workers and those that were found the members."""
        own = {} if self._supervisor is None else self._supervisor.workers
        places = {info.address for info in own.values()}
        found = {key: info for key, info in self._found.items() if info.address not in places}
        self.pinned: frozenset[str] = frozenset(own)
        self.set_members({**found, **own})

    @property
    def complete(self) -> bool:
        """Whether there will never be other workers than those that were found first."""
        found = self._plan.discovery
        return found is not None and found.backend.complete and not self._plan.size

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

    def on_connected(self, session: Session) -> None:
        """Tells a worker of its peers as soon as there is a session."""
        super().on_connected(session)
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
            if link.pinned:
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


def _check_shared(modules: Mapping[str, str | None]) -> None:
    """Checks that workers in processes of their own can have the back-ends of a pool.

    Args:
        modules: where they come from, by name; None: they exist in this process only.

    Raises:
        PluginError: they cannot.
    """
    for name, module in modules.items():
        if module is None:
            raise PluginError(
                f"{name!r} is known to this process only, so workers in processes of their own "
                "cannot have it: register a module that they can import, or use the transport "
                "'memory'"
            )
