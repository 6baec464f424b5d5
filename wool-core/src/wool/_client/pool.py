"""A pool as its callers see it: who its workers are, and a client for each event loop.

`WorkerPool` starts the workers of a pool and keeps them running; `PeerPool` is the view that a
worker has of the pool it belongs to, for the calls that routines make.
"""

from __future__ import annotations

import asyncio
import os
import platform
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from wool._client import remote
from wool._client.client import Balancer, Client
from wool._client.current import ACTIVE
from wool._client.link import Link
from wool._client.observing import ObservedStream, observed_call
from wool._client.routine import Routine
from wool._plugins.observers import Observer
from wool._protocol import frames as f
from wool._protocol.handshake import hello
from wool._protocol.transfer import CHUNK, WINDOW
from wool._security.keyring import Keyring
from wool._serialization.classes import CLASSES
from wool._serialization.code import CodeBook, CodeStore
from wool._serialization.codec import Codec
from wool._session.routes import Routes
from wool._session.session import Session
from wool._workerinfo import WorkerInfo
from wool.abc import Serializer
from wool.exceptions import NoWorkersAvailable, WoolError, WorkerLost, WorkerStopped

VERSION = "0.1.0"
PYTHON = ".".join(platform.python_version_tuple()[:2])


class Pool:
    """Workers, and the means to call them from any loop of any thread.

    Attributes:
        id: unique among pools.
        members: the workers, by id or, where that is not known, by address. Replaced as a whole,
            never changed.
        own: keys of those members that no other pool uses.
        failure: why there will be no workers, once that is known.
        quorum_timeout: seconds a call waits for a worker.
        cancel_grace: seconds a call that was cancelled waits for its remote clean-up.
        idle_timeout: seconds after which a connection that no call uses is closed.
        keeps: whether connections to own workers are kept even so.
        observers: who is told of calls.
    """

    observers: tuple[Observer, ...] = ()

    cancel_grace: float = 10.0
    idle_timeout: float = 300.0
    keeps = True

    routes: Routes
    keyring: Keyring
    codec: Codec

    def __init__(self, ident: str, *, quorum_timeout: float, balancer: Balancer | None = None):
        self.id = ident
        self.members: dict[str, WorkerInfo] = {}
        self.own: frozenset[str] = frozenset()
        self.failure: WoolError | None = None
        self.quorum_timeout = quorum_timeout
        self.balancer = balancer
        self.book: CodeBook = CodeBook()
        self.store: CodeStore = CodeStore(self.book)
        self.serializer_name: str = ""
        self.closed: bool = True
        self._process = 0
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._watchers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    # Public -----------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers of the pool as they are known now, each with its load as far as known."""
        known = dict(self.members)
        loads: dict[str, int] = {}
        for client in list(self._clients.values()):
            for key, link in list(client.links.items()):
                loads[key] = max(link.load, loads.get(key, 0))
                if key in known and not known[key].id:
                    known[key] = link.info
        return [replace(info, load=loads.get(key, 0)) for key, info in known.items()]

    @contextmanager
    def use(self) -> Generator[None]:
        """Makes calls of this context, and of tasks started in it, use this pool.

        Raises:
            WorkerStopped: the pool is not open.
        """
        self.check_open()
        before = ACTIVE.get()
        ACTIVE.set(self)
        try:
            yield
        finally:
            # Not reset(token): the pool may be left in another context than it was entered in.
            if ACTIVE.get() is self:
                ACTIVE.set(before)

    async def wait(self, n: int, *, timeout: float | None = None) -> None:
        """Waits until the pool has at least `n` workers.

        Raises:
            NoWorkersAvailable: there were fewer after `timeout` seconds, or there will be none.
            WorkerStopped: the pool has been closed.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notify() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._watchers.add(notify)
        try:
            async with asyncio.timeout(timeout):
                while self.ready < n:
                    self.check_open()
                    if self.failure is not None:
                        raise self.failure
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise NoWorkersAvailable(
                f"{self.ready} of {n} workers were ready after {timeout:g} s{self._unready()}"
            ) from None
        finally:
            self._watchers.discard(notify)

    @property
    def ready(self) -> int:
        """How many workers can be called: own ones that have started, others once connected."""
        own = sum(key in self.own for key in self.members)
        met = {
            link.info.id
            for client in list(self._clients.values())
            for key, link in list(client.links.items())
            if link.met and link.failure is None and key not in self.own
        }
        return own + len(met)

    def _unready(self) -> str:
        """Says of workers that are known why they cannot be called."""
        reasons = {
            f"{link.info.address}: {link.failure or 'no connection yet'}"
            for client in list(self._clients.values())
            for link in list(client.links.values())
            if not link.met or link.failure is not None
        }
        return f"; found were {'; '.join(sorted(reasons)[:5])}" if reasons else ""

    # For the wrappers of routines ---------------------------------------------------------------

    def call(
        self, routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, tuple[Any, BaseException | None]]:
        """Calls a routine on a worker; gives its result or its exception."""
        if self.observers:
            return observed_call(self, routine, args, kwargs)
        return remote.call(self, routine, args, kwargs)

    def stream(
        self, routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> remote.RemoteStream:
        """Prepares a stream; its first step opens it."""
        if self.observers:
            return ObservedStream(self, routine, args, kwargs)
        return remote.RemoteStream(self, routine, args, kwargs)

    def check_open(self) -> None:
        """Raises WorkerStopped if the pool is closed, or belongs to the parent of this fork."""
        if self.closed:
            raise self.closed_error()
        if self._process != os.getpid():
            raise WorkerStopped(
                f"the pool belongs to process {self._process}, this is its fork {os.getpid()}: "
                "open a pool here"
            )

    def closed_error(self) -> WorkerStopped:
        """Returns the error for using the pool after it was closed."""
        return WorkerStopped(
            "the pool that this call belongs to has been closed: call inside its `async with`"
        )

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
                client = self._clients[loop] = Client(self)
            client.update()
        return client

    def hello(self, security: str) -> f.Hello:
        """Returns what a client of this pool says of itself."""
        return hello(
            wool=VERSION,
            python=PYTHON,
            serializers=[self.serializer_name],
            serializer=self.serializer_name,
            process=CLASSES.process,
            window=WINDOW,
            chunk=CHUNK,
            pool=self.id,
            security=security,
        )

    def on_connected(self, link: Link, session: Session) -> None:
        """A client has opened a session to a worker."""
        for notify in list(self._watchers):
            notify()

    def on_drain(self, worker: WorkerInfo) -> None:
        """A worker has said that it takes no more calls."""

    async def explain_loss(self, worker: WorkerInfo, error: Exception) -> WorkerLost:
        """Returns the error for calls that were at a worker when its connection ended.

        What it says goes on with the name of a call: `… during f(), which may have run in part`.
        """
        return WorkerLost(
            f"the connection to worker {worker.pid} on {worker.host} ended ({error})",
            host=worker.host,
            pid=worker.pid,
        )

    # For those who know the members -------------------------------------------------------------

    def opened(
        self, routes: Routes, keyring: Keyring, serializer_name: str, serializer: Serializer
    ) -> None:
        """The pool can be used from now on."""
        self.routes = routes
        self.keyring = keyring
        self.codec = Codec(serializer, self.book, self.store)
        self.serializer_name = serializer_name
        self._process = os.getpid()
        self.failure = None
        self.closed = False

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
        for notify in list(self._watchers):
            notify()
        for loop, client in list(self._clients.items()):
            _call_in(loop, client.update)

    async def close_clients(self) -> None:
        """Ends all calls with `WorkerStopped` and closes all connections."""
        for notify in list(self._watchers):
            notify()
        with self._lock:
            self.closed = True
            clients, self._clients = self._clients, {}
        here = asyncio.get_running_loop()
        for loop, client in clients.items():
            if loop is here:
                await client.aclose(self.closed_error())
            else:
                _call_in(loop, _start_closing, loop, client, self.closed_error())
        self.members = {}


class PeerPool(Pool):
    """The pool of a worker, as the calls that its routines make see it.

    Idle connections are closed soon: workers that only keep one another connected to a pool that is
    gone would never notice.
    """

    idle_timeout = 60.0
    keeps = False


def _start_closing(loop: asyncio.AbstractEventLoop, client: Client, error: WoolError) -> None:
    loop.create_task(client.aclose(error))


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Calls back in another loop, unless that has ended."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        pass
