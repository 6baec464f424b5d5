"""`OwnedPool`: starts workers, keeps them running, finds others, and stops its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import threading
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from wool._client import remote
from wool._client.client import Client
from wool._client.current import ACTIVE, OPEN, ActivePool
from wool._client.identity import VERSION
from wool._client.peer_pool import peers
from wool._client.pool import Pool, rules_of
from wool._client.poolbase import PoolBase
from wool._client.routine import Routine
from wool._client.view import PoolView
from wool._code.modules import Modules
from wool._peer.session import Session
from wool._plugins import lookup
from wool._plugins.observers import Observer
from wool._pool.groups import GroupPlan
from wool._pool.membership import Membership
from wool._pool.plan import Plan
from wool._pool.scaling import LOOK, Demand, Scaler, Sizing
from wool._pool.supervisor import Supervisor
from wool._protocol import frames as f
from wool._settings.sending import dump
from wool._settings.settings import blaming
from wool._texts import reason_of
from wool._worker.lifespan import entering
from wool._worker.placement import Placement, place
from wool._worker.process import OwnWorker, WorkerProcess
from wool._worker.transports import Transports
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    ConfigurationError,
    NoWorkersAvailable,
    PluginError,
    WoolError,
    WorkerLost,
)

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

    Attributes:
        shared: whether calls use it whose context names no pool.
    """

    shared = True

    # While it is open:
    _supervisors: tuple[Supervisor, ...] = ()
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
        self._preparing: list[str] = []  # own workers that are not called yet

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
        if self.shared:
            OPEN.add(self)

    async def _open(self) -> None:
        plan = self._plan
        self._loop = asyncio.get_running_loop()
        with blaming(plan.origins["transport"]):
            plugin = lookup.transport(plan.transport).plugin
        in_process = "in-process" in plugin.capabilities
        if in_process and any(group.environment or group.memory_limit for group in plan.groups):
            raise ConfigurationError(
                f"the workers of the transport {plan.transport!r} are threads, and share the "
                "environment and the memory of this process: leave environment and memory_limit out"
            )
        # Interpreters take a while to start; meanwhile back-ends are loaded here.
        early: list[WorkerProcess] = []
        try:
            if not in_process:
                for group in plan.groups:
                    early.extend(_launch(group, slot) for slot in range(group.least))
            self._load()
            first = iter(early)
            self._supervisors = tuple(
                self._start(group, list(islice(first, group.least)), in_process=in_process)
                for group in plan.groups
            )
            if any(group.least < group.most for group in plan.groups):
                self._supervisors[0].run(self._scale(self.client()))
            self._find()
            await self.wait(plan.quorum, timeout=plan.options.quorum_timeout)
        except BaseException:
            await self._close(graceful=False)
            for process in early:  # as long as nobody has configured it
                process.kill()
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
        if plan.most and "in-process" not in plugin.capabilities:
            given = {name: module for name, (module, _) in transports.export().items()}
            _check_shared({**given, serializer.plugin.name: serializer.module})
        self._news.forget()
        plugins = self._plugins = lookup.companions(plan.core.observers)
        self.follow(plugins)
        placement = self._placement = place(
            plugin,
            plan.discovery,
            plan.credentials,
            starting=plan.most > 0,
            elsewhere=any(group.elsewhere for group in plan.groups),
        )
        keyring = placement.keyring
        self._config: dict[str, Any] = {
            "transport": plugin.name,
            "transports": transports.export(),
            "serializer": (serializer.plugin.name, serializer.module, dump(options)),
            "wool": VERSION,
            "keyring": keyring.export(),
            "drain_timeout": plan.core.drain_timeout,
            "cancel_grace": plan.core.cancel_grace,
            "loop": plan.core.loop,
            "observers": [o.module for o in plugins if o.module and o.useful],
        }
        self.opened(transports.routes, keyring, serializer.plugin.name, self._serializer)

    def _start(
        self, group: GroupPlan, early: list[WorkerProcess], *, in_process: bool
    ) -> Supervisor:
        """Has the workers of a group started, and kept."""
        plan, placement = self._plan, self._placement
        assert placement is not None
        supervisor = Supervisor(
            max(min(plan.quorum, group.least), 1),
            partial(self._start_thread if in_process else self._start_process, group),
            tags=group.tags,
            serializer_name=self.serializer_name,
            discovery=plan.discovery,
            prepare=partial(self._prepare, group.lifespan and entering(group.lifespan)),
            cancel_grace=plan.core.cancel_grace,
            on_change=self._merge,
            on_end=self.died,
            on_failure=self._on_no_workers,
            on_abandoned=placement.discard,  # a pool that is never left leaves nothing, either
        )
        supervisor.resize(group.least, early)
        return supervisor

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

    async def _close(self, *, graceful: bool) -> None:
        self.closed = self._closing = True
        try:
            if graceful:
                await self._finish_calls()
        finally:
            supervisors, watching = self._supervisors, self._watching
            self._watching = None
            if watching is not None:
                watching.cancel()
            for supervisor in supervisors:
                supervisor.stop()
            try:
                await self.close_clients()
                if watching is not None:
                    await asyncio.gather(watching, return_exceptions=True)
            finally:
                try:
                    await asyncio.gather(*(s.aclose() for s in supervisors))
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

    async def _scale(self, client: Client) -> None:
        """Has as many workers of each group kept as calls can make use of.

        A worker that is asked to leave does so only if it has nothing to do by then.
        """
        idle = self._plan.core.idle
        scaled = [
            (g, supervisor, Scaler(Sizing(g.least, g.most, idle, g.concurrency), g.concurrency))
            for g, supervisor in zip(self._plan.groups, self._supervisors, strict=True)
            if g.least < g.most
        ]
        while True:
            await asyncio.sleep(LOOK)
            peers = [(link, link.peer) for link in client.links.values() if link.peer is not None]
            usages = [peer.usage for _, peer in peers if peer.usage is not None]
            wanted = [*self.wanted, *(tags for usage in usages for tags in usage.wanted)]
            spare: set[str] = set()
            for group, supervisor, scaler in scaled:
                own = supervisor.workers
                others = self.pinned - own.keys()
                links = [link for key, link in client.links.items() if key not in others]
                demand = Demand(
                    unplaced=sum(group.tags.issuperset(tags) for tags in wanted),
                    awaited=self.awaited - (self.ready - len(own)),
                )
                size, leaving = scaler.look(self._loop.time(), links, own, demand)
                spare.update(leaving)
                supervisor.resize(size)
                if not size:
                    self.failure = None  # nobody tries any more, so the next call may
            for link, peer in peers:
                peer.measure(retire=link.info.id in spare)

    def _start_process(
        self, group: GroupPlan, ident: str, slot: int, early: WorkerProcess | None
    ) -> WorkerProcess:
        process = early or _launch(group, slot)
        assert self._placement is not None
        # Whether the worker imports what this process imports.
        alike = self.modules.imported_alike and not group.launcher.elsewhere
        own = {
            "id": ident,
            "listen": self._placement.address(),
            "tags": sorted(group.tags),
            "concurrency": group.concurrency,
            "memory_limit": group.memory_limit,
            "pool": self.id if alike else "",
            "elsewhere": group.launcher.elsewhere,
        }
        process.configure({**self._config, **own})
        return process

    def _start_thread(
        self, group: GroupPlan, ident: str, slot: int, early: WorkerProcess | None
    ) -> OwnWorker:
        # The modules of a worker are loaded only where it runs in this process.
        from wool._worker.server import Setup
        from wool._worker.thread import WorkerThread

        setup = Setup(
            id=ident,
            tags=group.tags,
            transport=self._plan.transport,
            transports=self._transports,
            keyring=self.keyring,
            serializer=self._serializer,
            serializer_name=self.serializer_name,
            listen=None,
            observers=self._plugins,
            parent=self.id,
        )
        return WorkerThread(setup, group.concurrency, self._plan.core.drain_timeout)

    async def _prepare(self, enter: Routine | None, worker: WorkerInfo) -> WoolError | None:
        """Has a worker enter its lifespan before it is called; returns why it could not."""
        if enter is None:
            return None
        who = f"worker {worker.pid} on {worker.host}"
        self._preparing.append(who)
        try:
            _, error = await remote.call(self, enter, (), {}, worker=worker)
        finally:
            self._preparing.remove(who)
        if error is None:
            return None
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error
        failure = WoolError(f"the lifespan could not be entered on {who}: {reason_of(error)}")
        failure.__cause__ = error
        return failure

    def _on_found(self, found: dict[str, WorkerInfo]) -> None:
        """The discovery knows of other workers than before."""
        if not self.closed:
            self._found = found
            self._merge()

    def _on_no_discovery(self, error: Exception) -> bool:
        """The discovery fails; if that is how it is configured, nobody need wait for it."""
        mistaken = isinstance(error, ConfigurationError)
        if mistaken and not self.members and not self._plan.most and not self.closed:
            self.fail(error)
            return True
        return False

    def _merge(self) -> None:
        """Makes the own workers and those that were found the members."""
        own = {k: v for supervisor in self._supervisors for k, v in supervisor.workers.items()}
        places = {info.address for info in own.values()}
        found = {key: info for key, info in self._found.items() if info.address not in places}
        self.pinned: frozenset[str] = frozenset(own)
        self.set_members({**found, **own})

    @property
    def most(self) -> int:
        """How many workers there are, or may be as soon as they are needed."""
        return max(self._plan.most, super().most)

    @property
    def complete(self) -> bool:
        """Whether there will never be other workers than those that were found first."""
        found = self._plan.discovery
        return found is not None and found.backend.complete and not self._plan.most

    def unready(self, tags: frozenset[str] = frozenset()) -> str:
        """Says, besides, what the discovery has found, and what own workers still do."""
        said = super().unready(tags)
        for supervisor in self._supervisors:
            said += "".join(f"; {why}" for why in supervisor.waiting())
        if self._preparing:
            said += f"; the lifespan is still being entered on {', '.join(self._preparing)}"
        for failure in {supervisor.failure for supervisor in self._supervisors} - {""}:
            said += f"; a worker could not be started: {failure}"
        return said if self._membership is None else f"; {self._membership.summary()}{said}"

    def reasons(self, tags: frozenset[str]) -> dict[str, list[str]]:
        """Returns the addresses of the workers that cannot be called, by the reasons for it."""
        unfit = {} if self._membership is None else self._membership.reasons()
        return {**super().reasons(tags), **unfit}

    def _on_no_workers(self, error: NoWorkersAvailable) -> None:
        """Workers of a group cannot be started; if there can be no others, calls need not wait."""
        if not self.members and all(supervisor.failure for supervisor in self._supervisors):
            self.fail(error)

    def on_drain(self, worker: WorkerInfo) -> None:
        """A worker that drains is replaced at once, while its last calls run."""
        if not self.closed:
            for supervisor in self._supervisors:
                supervisor.replace(worker.id)

    # Reports of clients -------------------------------------------------------------------------

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
        each = [await supervisor.ended(worker.id) for supervisor in self._supervisors]
        ended = next((ended for ended in each if ended is not None), None)
        if ended is None:
            return await super().explain_loss(worker, error)
        code, words = ended
        return WorkerLost(
            f"worker {worker.pid} on {worker.host} {words}",
            exitcode=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            host=worker.host,
            pid=worker.pid,
        )


def _launch(group: GroupPlan, slot: int) -> WorkerProcess:
    return WorkerProcess(group.launcher, slot, group.environment)


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
