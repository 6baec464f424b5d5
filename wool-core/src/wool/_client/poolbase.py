"""A pool as the calls that use it and the connections beneath them see it: facts and hooks."""

from __future__ import annotations

import os
from typing import Protocol

from wool._client.current import ActivePool
from wool._client.identity import hello
from wool._code.code import CodeBook, CodeStore
from wool._code.modules import Modules
from wool._peer.outgoing import OutgoingCall, Request
from wool._peer.routes import Routes
from wool._peer.running import Complaints
from wool._peer.session import Session
from wool._plugins.observers import Observer, Translator
from wool._protocol import frames as f
from wool._protocol.status import ProcessStatus
from wool._security.credentials import Keyring
from wool._values.codec import Codec, ValuesInCode
from wool._values.context import ContextCodec
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError, WorkerLost, WorkerStopped


class Caller(Protocol):
    """The maker of calls on one loop; see `client.Client`."""

    def open(self, request: Request) -> OutgoingCall:
        """Begins a call."""
        ...


class PoolBase(ActivePool):
    """The workers of a pool, and how they are called.

    Attributes:
        id: unique among pools.
        members: the workers, by id or, where that is not known, by address. Replaced as a whole,
            never changed.
        pinned: keys of those members that are always linked, and count as ready without having been
            dialled.
        required: tags that every worker has to offer.
        failure: why there will be no workers, once that is known.
        options: those that hold for all its calls.
        modules: those that travel with its calls.
        codec: encodes and decodes its calls; made anew when it is opened.
        idle_timeout: seconds after which a connection that no call uses is closed.
        keeps: whether connections to own workers are kept even so.
        here: id of the worker whose calls use it, if they do.
        observers: those that are told of calls.
        attendants: those that are told of calls that are executed for the pool here.
        translators: have contexts of libraries travel.
        context: encodes context variables; None if they do not travel.
        complaints: remarks that were made on context variables that do not travel.
    """

    observers: tuple[Observer, ...] = ()
    attendants: tuple[Observer, ...] = ()
    translators: tuple[Translator, ...] = ()

    idle_timeout: float = 300.0
    keeps = True
    here = ""

    routes: Routes
    keyring: Keyring
    codec: Codec
    context: ContextCodec | None

    def __init__(self, ident: str, options: f.CallOptions, modules: Modules | None) -> None:
        self.id = ident
        self.members: dict[str, WorkerInfo] = {}
        self.pinned: frozenset[str] = frozenset()
        self.required: frozenset[str] = frozenset()
        self.failure: WoolError | None = None
        self.options = options
        self.modules: Modules = modules or Modules()
        self._book = CodeBook(self.modules, ValuesInCode())
        self._store = CodeStore(self._book)
        self.complaints: Complaints = Complaints()
        self.serializer_name: str = ""
        self.closed: bool = True
        self._process = 0

    def check_open(self) -> None:
        """Raises WorkerStopped if the pool is closed, or belongs to the parent of this fork."""
        if self.closed:
            raise self.closed_error()

    def client(self) -> Caller:
        """Returns the client of the running loop."""
        raise NotImplementedError

    def closed_error(self) -> WorkerStopped:
        """Returns the error for using the pool after it was closed, or in a fork."""
        if self._process not in (0, os.getpid()):
            return WorkerStopped(
                f"the pool belongs to process {self._process}, this is its fork {os.getpid()}: "
                "open a pool here"
            )
        return WorkerStopped(
            "the pool that this call belongs to has been closed: call inside its `async with`"
        )

    def hello(self, security: str) -> f.Hello:
        """Returns what a client of this pool says of itself."""
        name = self.serializer_name
        return hello([name], serializer=name, pool=self.id, security=security)

    # Facts for clients --------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many workers can be called: own ones that have started, others once connected."""
        raise NotImplementedError

    @property
    def awaited(self) -> int:
        """How many workers somebody waits for."""
        raise NotImplementedError

    def unready(self, tags: frozenset[str] = frozenset()) -> str:
        """Says of workers why they cannot be called: of all there are, for a call with `tags`.

        Returns:
            Words that can follow a sentence; none if there is nothing to say.
        """
        raise NotImplementedError

    def status(self) -> ProcessStatus:
        """Returns what this process says of the calls that it has made with the pool."""
        raise NotImplementedError

    # Reports of clients -------------------------------------------------------------------------

    def on_connected(self, session: Session) -> None:
        """A client has opened a session to a worker."""

    def on_failed(self) -> None:
        """A client could not connect to a worker."""

    def hold(self) -> bool:
        """Calls wait for a connection; returns whether `release` is to be called after that."""
        return False

    def release(self) -> None:
        """The connection has been made, or is taking too long."""

    def on_drain(self, worker: WorkerInfo) -> None:
        """A worker has said that it takes no more calls."""

    async def explain_loss(self, worker: WorkerInfo, error: Exception) -> WorkerLost:
        """Returns the error for calls that were at a worker when its connection ended.

        Its message goes on with the name of a call: `… during f(), which may have run in part`.
        """
        return WorkerLost(
            f"the connection to worker {worker.pid} on {worker.host} ended ({error})",
            host=worker.host,
            pid=worker.pid,
        )
