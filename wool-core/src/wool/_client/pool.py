"""A pool as its callers see it: who its workers are, and a client for each event loop.

An `OwnedPool` starts its workers and keeps them running; a `PeerPool` is what a worker knows of the
pool it belongs to.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from wool._client.client import Balancer, Client, loaded
from wool._client.current import ACTIVE, OPEN, ActivePool
from wool._client.inspecting import PATIENCE, inspect, own_status
from wool._client.link import Link
from wool._client.poolbase import PoolBase
from wool._client.probing import Probe
from wool._client.remote import call, observed_call
from wool._client.remote_stream import ObservedStream, RemoteStream
from wool._client.view import PoolView
from wool._code.modules import Modules
from wool._code.rules import Rules
from wool._peer.outgoing import Failed
from wool._peer.routes import Routes
from wool._peer.running import Complaints
from wool._peer.session import Session
from wool._plugins.observers import Observer
from wool._protocol import frames as f
from wool._protocol.status import ProcessStatus
from wool._security.credentials import Keyring
from wool._values.codec import Codec
from wool._values.context import ContextCodec
from wool._values.variables import VARIABLES
from wool._workerinfo import WorkerInfo
from wool.abc import Serializer
from wool.exceptions import (
    AuthenticationError,
    NoWorkersAvailable,
    VersionMismatch,
    WoolError,
)

# The first call would look for its name in all modules.
VARIABLES.nameless[ACTIVE] = None


FEW_NAMED = 3
"""Of workers with one trouble, so many are named."""


class Pool(PoolBase):
    """Workers, and the means to call them from any loop of any thread.

    Attributes:
        balancer: chooses the worker for a call; None for the least loaded one.
    """

    def __init__(
        self,
        ident: str,
        options: f.CallOptions,
        modules: Modules | None = None,
        *,
        balancer: Balancer | None = None,
        view: PoolView | None = None,
    ) -> None:
        super().__init__(ident, options, modules)
        self.view = PoolView(self) if view is None else view
        self.balancer = balancer
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._awaiting: dict[Callable[[], None], int] = {}
        self._lock = threading.Lock()

    # For its view -------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers as they are known now."""
        known = dict(self.members)
        loads: dict[str, int] = {}
        for key, link in self._links:
            loads[key] = max(link.load, loads.get(key, 0))
            if key in known and link.met:
                known[key] = link.info
        once = {info.id or key: (key, info) for key, info in reversed(known.items())}
        return [loaded(info, loads.get(key, 0)) for key, info in reversed(once.values())]

    @property
    def most(self) -> int:
        """How many workers there are, or may be as soon as they are needed."""
        return len(self.members)

    @property
    def _living(self) -> list[Client]:
        """The clients; what was known to those of loops that are closed is old."""
        return [k for loop, k in list(self._clients.items()) if not loop.is_closed()]

    @property
    def _links(self) -> list[tuple[str, Link]]:
        """All that clients know of workers, by the keys of these."""
        return [found for client in self._living for found in list(client.links.items())]

    @property
    def wanted(self) -> list[frozenset[str]]:
        """The tags of each call that waits for a worker."""
        return [tags for client in self._living for tags in client.wanted()]

    async def wait(self, n: int, *, timeout: float | None = None) -> None:
        """Waits until there are at least `n` workers; see `PoolView`."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            _call_in(loop, changed.set)

        self._awaiting[notify] = n
        try:
            async with asyncio.timeout(timeout):
                while self.ready < n:
                    self.check_open()
                    if self.failure is not None:
                        raise Failed(self.failure).fresh_error()
                    self.client().reach()
                    self._check_hope(n)
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise self._too_few(n, f" after {timeout:g} s") from None
        finally:
            del self._awaiting[notify]

    def _check_hope(self, n: int) -> None:
        """Raises an error if it is certain that there will never be `n` workers."""
        links = self.client().links
        refused = sum(link.refused for link in links.values())
        all_known = self.complete and len(self.members) == len(links)
        if refused and all_known and len(links) - refused < n:
            raise self._too_few(n, "")

    def _too_few(self, n: int, when: str) -> WoolError:
        """Returns the error that says why there are less than `n` workers."""
        kinds = {type(link.failure) for link in self.client().links.values()}
        kind = kinds.pop() if len(kinds) == 1 else NoWorkersAvailable
        if kind not in (AuthenticationError, VersionMismatch):
            kind = NoWorkersAvailable
        return kind(f"{self.ready} of {n} workers were ready{when}{self.unready()}")

    @property
    def complete(self) -> bool:
        """Whether there will never be other workers than there are."""
        return False

    @property
    def ready(self) -> int:
        """How many workers can be called: own ones that have started, others once connected."""
        own = sum(key in self.members for key in self.pinned)
        met = {
            link.info.id
            for key, link in self._links
            if link.met and link.failure is None and key not in self.pinned
        }
        return own + len(met)

    @property
    def awaited(self) -> int:
        """How many workers somebody waits for."""
        return max(self._awaiting.values(), default=0)

    def unready(self, tags: frozenset[str] = frozenset()) -> str:
        """Says of workers why they cannot be called: of all there are, for a call with `tags`.

        Returns:
            Words that can follow a sentence; none if there is nothing to say.
        """
        reasons = sorted(self.reasons(tags).items())
        return "".join(f"; {_some(places)}: {reason}" for reason, places in reasons)

    def reasons(self, tags: frozenset[str]) -> dict[str, list[str]]:
        """Returns the addresses of the workers that cannot be called, by the reasons for it."""
        reasons: dict[str, list[str]] = {}
        for _, link in self._links:
            reason = link.reason_against(tags)
            if reason is not None and link.info.address not in reasons.get(reason, ()):
                reasons.setdefault(reason, []).append(link.info.address)
        return reasons

    # For the wrappers of routines ---------------------------------------------------------------

    def only(self, worker: WorkerInfo) -> ActivePool:
        """Returns the pool as calls see it that are for one of its workers."""
        return _OneWorker(self, worker)

    # For clients ------------------------------------------------------------------------------

    def client(self) -> Client:
        """Returns the client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or client.closed:
            with self._lock:
                self.check_open()
                for old in [k for k in self._clients if k.is_closed()]:
                    del self._clients[old]
                client = self._clients[loop] = Client(self, self.balancer)
            client.update()
        return client

    def on_connected(self, session: Session) -> None:
        """A client has opened a session to a worker."""
        self._notify()

    def on_failed(self) -> None:
        """A client could not connect to a worker."""
        self._notify()

    def _notify(self) -> None:
        for notify in list(self._awaiting):
            notify()

    # The state of its calls --------------------------------------------------------------------

    def status(self) -> ProcessStatus:
        """Returns what this process says of the calls that it has made with the pool."""
        return own_status(self._living)

    async def inspect(self) -> list[ProcessStatus]:
        """Asks the workers that calls may be at; see `inspecting.inspect`."""
        probe = Probe(self.routes, self.keyring, self.hello, PATIENCE)
        return await inspect(self.client(), probe.ask)

    # For those who know the members -------------------------------------------------------------

    def opened(
        self, routes: Routes, keyring: Keyring, serializer_name: str, serializer: Serializer
    ) -> None:
        """The pool can be used from now on."""
        self.routes = routes
        self.keyring = keyring
        self.codec = Codec(serializer, self._book, self._store)
        self.complaints = Complaints()
        self.choose_context()
        self.serializer_name = serializer_name
        observed = self.observers or self.balancer is not None
        self.call = partial(observed_call if observed else call, self)
        self.stream = partial(ObservedStream if observed else RemoteStream, self)
        self._process = os.getpid()
        OPEN.note(self)
        self.failure = None
        self.closed = False

    def follow(self, observers: Iterable[Observer]) -> None:
        """Has plug-ins told of calls, and asked for contexts; to be said before it is opened."""
        observers = tuple(observers)
        self.observers = tuple(o for o in observers if o.listens)
        self.attendants = tuple(o for o in observers if o.attends)
        self.translators = tuple(t for o in observers for t in o.translators())

    def choose_context(self) -> None:
        """Has context variables travel or not, as the options say."""
        options = self.options
        self.context = (
            ContextCodec(self.codec, options.exclude, self.translators) if options.context else None
        )

    def set_members(self, members: dict[str, WorkerInfo]) -> None:
        """Replaces the workers; clients on all loops take note."""
        self.members = members
        if members:
            self.failure = None
        self._changed()

    def died(self, ident: str) -> None:
        """The process of a worker has ended; its calls end now, whatever its connections do."""
        for loop, client in list(self._clients.items()):
            _call_in(loop, client.died, ident)

    def fail(self, error: WoolError) -> None:
        """There will be no workers; calls that wait for one end with `error`."""
        self.failure = error
        self._changed()

    def _changed(self) -> None:
        self._notify()
        for loop, client in list(self._clients.items()):
            _call_in(loop, client.update)

    async def close_clients(self) -> None:
        """Ends all calls with `WorkerStopped` and closes all connections."""
        self._notify()
        with self._lock:
            self.closed = True
            clients, self._clients = self._clients, {}
        own = clients.pop(asyncio.get_running_loop(), None)
        for loop, client in clients.items():  # first, for what follows may be cancelled
            _call_in(loop, _start_closing, loop, client, self.closed_error())
        if own is not None:
            await own.aclose(self.closed_error())
        self.members = {}


class _OneWorker(ActivePool):
    """A pool as calls see it that are for one of its workers."""

    def __init__(self, pool: Pool, worker: WorkerInfo) -> None:
        self._pool = pool
        self.view = pool.view
        self.call = partial(observed_call if pool.observers else call, pool, worker=worker)
        self.stream = pool.stream

    def check_open(self) -> None:
        self._pool.check_open()

    def only(self, worker: WorkerInfo) -> ActivePool:
        return self._pool.only(worker)


def _some(places: Sequence[str]) -> str:
    """Names a few of many."""
    if len(places) <= FEW_NAMED:
        return ", ".join(places)
    return f"{', '.join(places[:FEW_NAMED])} and {len(places) - FEW_NAMED} more"


def rules_of(options: f.CallOptions) -> Rules:
    """Returns what a pool says about modules."""
    return Rules(options.travels, tuple(options.ship), tuple(options.by_reference))


def _start_closing(loop: asyncio.AbstractEventLoop, client: Client, error: WoolError) -> None:
    loop.create_task(client.aclose(error))


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Calls back in another loop, unless that has ended."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        pass
