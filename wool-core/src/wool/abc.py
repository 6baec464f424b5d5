"""Interfaces for authors of back-ends: transports, discoveries, serializers and launchers.

A back-end does one thing. A transport moves messages and knows nothing of calls or pickles; a
discovery says who exists and filters nothing; a serializer turns values into bytes; a launcher says
how a process is started. Everything else (framing of calls, authentication, chunking, retrying to
connect, replacing workers) is Wool's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from wool import _namesake
from wool._workerinfo import WorkerInfo

try:
    from wool.exceptions import (
        ConfigurationError,
        ConnectFailed,
        ConnectionLost,
        MessageTooLarge,
        TransportError,
    )
except ImportError:  # they are of another distribution
    _namesake.check()
    raise

from wool._inbox import Inbox, Take

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Announcement",
    "Buffer",
    "Changed",
    "ConfigurationError",
    "ConnectFailed",
    "Connection",
    "ConnectionLost",
    "Discovery",
    "Event",
    "Handler",
    "Inbox",
    "Joined",
    "Launcher",
    "Left",
    "Listener",
    "MessageTooLarge",
    "Payload",
    "Pem",
    "Reduce",
    "Segments",
    "Serializer",
    "Snapshot",
    "Take",
    "Tls",
    "Transport",
    "TransportError",
    "WorkerInfo",
    "outward_host",
    "watching",
]

Buffer = bytes | bytearray | memoryview
Segments = Sequence[Buffer]
"""One message, as the buffers whose concatenation it is. A transport must not change them; whoever
sends them may, once `send` has returned."""


class Connection(ABC):
    """An ordered, reliable pipe of messages between two parties.

    One task reads and one task writes at a time. `send`, `receive` and `pump` raise
    `ConnectionLost` once it has ended.

    It goes on until `aclose`. At the end of `asyncio.run` all tasks are cancelled, those of a
    transport among them, and only then does Wool close what goes on at the other side: so a
    connection does without tasks of its own, or with tasks that cancelling does not end.
    """

    max_message_size: int
    """Largest message in bytes that `send` takes; at least 512 KiB."""

    receive_limit: int = 4096
    """Largest message in bytes to accept. Starts small, and Wool raises it once the peer has
    authenticated itself. A transport that sees a larger one coming drops the connection."""

    @abstractmethod
    async def send(self, messages: Sequence[Segments]) -> None:
        """Queues a batch of messages, in order; returns late while the peer is not keeping up.

        Returning says nothing about delivery. A cancelled `send` may have queued any prefix of
        the batch; the connection must then be closed.

        Raises:
            MessageTooLarge: a message exceeds `max_message_size`; none of the batch was sent.
            ConnectionLost: the connection has ended.
        """

    def can_send_now(self) -> bool:
        """Whether this thread may call `send_now`: nothing sent before is still waiting here.

        Optional, for transports that can write without waiting: best from any thread, else from
        that of the connection's loop.
        """
        return False

    def send_now(self, messages: Sequence[Segments]) -> None:
        """Sends a small batch at once; what the peer does not take yet follows by itself.

        Called after `can_send_now` said yes on the same thread, and never while `send` or another
        `send_now` is running. Never raises for a lost connection: `receive` will tell.
        """
        raise NotImplementedError

    @abstractmethod
    async def receive(self) -> Sequence[bytes | memoryview]:
        """Waits for messages and returns all that have arrived, at least one.

        Cancelling loses nothing: the messages are returned by the next call.

        Raises:
            ConnectionLost: the connection has ended and everything received has been returned.
        """

    async def pump(self, take: Take) -> NoReturn:
        """Calls `take` with whatever arrives, as `receive` would have returned it, to the end.

        Optional: as it stands it calls `receive` again and again. A transport that is told of
        what arrives by a callback can call `take` from there, a turn of the loop earlier; `Inbox`
        does. Nobody calls `receive` meanwhile. Cancelling loses nothing: what `take` has not been
        given is given to the next one, or returned by `receive`.

        Raises:
            ConnectionLost: the connection has ended and everything received has been given.
            Exception: what `take` raises ends this call, not the connection.
        """
        while True:
            take(await self.receive())

    @abstractmethod
    async def aclose(self) -> None:
        """Sends what is queued if the peer takes it soon, then closes. Never fails; idempotent.

        Cancelled, it may have lost what was queued, and can be called again.
        """

    def extra(self, attribute: str, default: Any = None) -> Any:
        """Returns what is known of the connection, or `default`.

        Attributes in use: `"peer"` (str, printable address), `"uid"` (int, user id of a local
        peer as the kernel tells it), `"same_host"` (bool) and, on the side that dialled with TLS,
        `"certificate"` (bytes, DER: the one the listener has shown that it holds the key of).
        """
        return default


Handler = Callable[[Connection], Awaitable[None]]


class Listener(ABC):
    """A place where connections arrive."""

    address: str
    """The address that others dial, with its scheme; never a wildcard."""

    @abstractmethod
    async def serve(self, handler: Handler) -> None:
        """Runs `handler` in a task of its own for each connection, until cancelled.

        A connection is closed when its handler ends. One that raises affects nothing else, and
        `ConnectionLost` is no reason to log anything. Being cancelled, it cancels all handlers and
        waits for them. After `aclose` it accepts nobody new, and may return once all handlers have
        ended. Wool calls `aclose` in any case.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Stops listening and removes what `listen` created. Connections live on. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pem:
    """Certificates that one side of a TLS connection holds and trusts, PEM-encoded.

    Attributes:
        certificate: own certificate, then those between it and its authority; None: shows none.
        key: the private key of it.
        authorities: certificates whose holders, and those they have signed, are accepted. None:
            on the side that dials, those the system trusts; on the listening side, nobody is asked.
    """

    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    authorities: bytes | None = None


class Tls(ABC):
    """How a transport is to secure its connections. Made by Wool, never by a transport.

    The contexts are for transports on Python's `ssl`, the PEM texts for others. Files behind them
    may be replaced at any time: ask anew for each connection that is dialled; `server_context`
    sees to it by itself, and `server_pem` is cheap enough to be asked for each one accepted.

    Attributes:
        verify: whether the side that dials must verify the listener's certificate against
            `authorities` and `server_name`. If not, any certificate will do, provided that its key
            is used and that the connection tells it as `extra("certificate")`: Wool then checks
            that the listener knows the shared secret and means to use this very certificate.
        server_name: the name to ask for, and to verify; None: the host in the address.
        asks_client: whether a listener must demand a certificate that `authorities` signed.
    """

    verify: bool
    server_name: str | None
    asks_client: bool

    @abstractmethod
    def server_context(self) -> ssl.SSLContext:
        """Returns the context to listen with."""

    @abstractmethod
    def client_context(self) -> ssl.SSLContext:
        """Returns the context to dial with; give `server_name` or the host along with it."""

    @abstractmethod
    def server_pem(self) -> Pem:
        """Returns what to listen with."""

    @abstractmethod
    def client_pem(self) -> Pem:
        """Returns what to dial with."""


class Transport(ABC):
    """Makes connections.

    Addresses are `name://host:port`, or `name+unix:///path` for a Unix socket if the plug-in's
    capabilities have `"unix"`. Wool decides how a connection is secured: with `credentials` there
    must be TLS as they say, or no connection; without, there is none. So a transport never falls
    back from one to the other.
    """

    @abstractmethod
    async def connect(self, address: str, *, credentials: Tls | None, timeout: float) -> Connection:
        """Dials `address` within `timeout` seconds.

        Raises:
            ConnectFailed: with the reason. A cancelled `connect` leaves nothing open.
        """

    @abstractmethod
    async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
        """Listens at `address`, or at a place of the transport's choice on this machine alone.

        Port 0 stands for any that is free.

        Raises:
            ConnectFailed: the address cannot be listened on; says why.
        """


class Announcement(ABC):
    """A worker made known to others."""

    @abstractmethod
    async def update(self, worker: WorkerInfo) -> None:
        """Replaces what is announced. The id stays the same."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workers there are; replaces what was known."""

    workers: Sequence[WorkerInfo]


@dataclass(frozen=True, slots=True)
class _OfOne:
    worker: WorkerInfo


class Joined(_OfOne):
    """A worker has appeared."""

    __slots__ = ()


class Changed(_OfOne):
    """A worker that was known has other properties now."""

    __slots__ = ()


class Left(_OfOne):
    """A worker is gone, orderly or not."""

    __slots__ = ()


Event = Snapshot | Joined | Changed | Left
"""Events that a watcher of a discovery is told."""


class Discovery(ABC):
    """Says which workers exist. It is only a hint: Wool authenticates whoever it dials.

    One discovery may be used on several event loops at once. Each context is entered and left by
    the same task.
    """

    host: str = "0.0.0.0"  # noqa: S104
    """Where workers of a network transport listen that are announced here, unless they are told an
    address: the number of an interface, or a wildcard."""

    announces: bool = True
    """Whether `announce` tells anybody; not if others know by a list that is kept elsewhere."""

    complete: bool = False
    """Whether the first snapshot has all the workers that there will ever be."""

    port: int = 0
    """The port of a single worker that is told no address; 0: any that is free."""

    scheme: str = ""
    """The scheme that others expect the addresses of workers to have; empty if they take any."""

    @abstractmethod
    def announce(self, worker: WorkerInfo) -> AbstractAsyncContextManager[Announcement]:
        """Makes `worker` known while the context is open; leaving it withdraws the worker.

        All that is known of it is carried; only `load` need not be. Cancelled while it is entered,
        it leaves nothing announced. Workers of a process that is killed disappear within a time
        that its documentation tells, and its tests (`gone_within` of the kit) hold it to.

        Raises:
            ConfigurationError: it cannot be announced, on entering; says why.
        """

    @abstractmethod
    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Watches workers come and go. The first event is a `Snapshot`.

        Each watch has its own events. Between two snapshots a worker joins, may change, and leaves
        once. A slow watcher may get a `Snapshot` in their place. Cancelling
        `anext` loses nothing; leaving the context ends the iteration, also for who is waiting.
        `watching` sees to most of that.

        Raises:
            ConfigurationError: it cannot work, so there is no use waiting.
            Exception: whatever there is; Wool keeps what it knows, and watches again after a while.
        """


def outward_host(version: int = 4) -> str:
    """Returns a number under which others reach what listens on all interfaces of this machine.

    A transport makes the address of such a listener with it.

    Args:
        version: of IP, 4 or 6; the other one is used if this machine has none of it.
    """
    from wool import _addresses  # what plug-ins say of themselves needs no sockets

    return _addresses.outward_host(version)


def watching(events: AsyncGenerator[Event]) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
    """Returns what `Discovery.watch` may return, given an async generator that yields the events.

    The generator runs in a task of its own from when the context is entered, and is cancelled and
    closed when that is left. Events wait for the watcher, which also gets an error that is raised.
    A cancelled `anext` would end the generator itself; here it loses nothing.
    """
    from wool._watching import watching  # which imports asyncio

    return watching(events)


Reduce = Callable[[Any], Any]
"""Called for every object that is not of a plain built-in type. Returns `NotImplemented`, or what
`object.__reduce_ex__` may return (a tuple of up to six items), which then takes precedence."""


class Payload(NamedTuple):
    """A serialized value: a pickle stream and the buffers it refers to, in order."""

    head: Buffer
    buffers: Sequence[Buffer] = ()


class Serializer(ABC):
    """Turns values into bytes and back, as pickle does: types, identity and recursion are kept.

    Must be usable from several threads at once, and by `reduce` while it serializes. No payload
    depends on another one, and nothing is kept of values.
    """

    @abstractmethod
    def dumps(self, value: Any, reduce: Reduce) -> Payload:
        """Serializes `value`, and leaves it as it is.

        Buffers of 64 KiB and more that support it stay out of band: those of the value itself, not
        copies.

        Raises:
            Exception: whatever the library raises; Wool says which argument it was.
        """

    @abstractmethod
    def loads(self, payload: Payload) -> Any:
        """Rebuilds the value. Out-of-band buffers are used in place, not copied.

        Raises:
            Exception: what constructors raise; or the payload is not complete.
        """


class Launcher(ABC):
    """Says by which command a worker is started, on this machine or on another one.

    Wool runs the command, once for each worker, and again after one has ended; it hands the worker
    its configuration and secrets, watches it and ends it. All that goes through the standard input
    and output of the command. Which worker gets which call is not a launcher's business.
    """

    elsewhere: bool = False
    """Whether workers may be on other machines. They listen on a network then, have the files and
    modules of their own machine, and print to the standard error of the command."""

    slots: int | None = None
    """Number of workers that there is room for, and that a pool has which is told no size; None: as
    many as are wanted."""

    @abstractmethod
    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        """Returns the command for one worker. It is run without a shell, and may contain no secret.

        The command runs a Python interpreter with these arguments. Its standard input arrives at
        that of the interpreter, byte for byte and at once. Where `elsewhere` says so, the standard
        output of the interpreter arrives here in the same way, and nothing else is written there.
        When its standard input ends, or the command gets SIGTERM, that of the interpreter ends too:
        this is how a worker knows that nobody needs it any more. When the interpreter has ended,
        the command ends with its exit code, or 128 and the number of the signal that killed it.

        Args:
            slot: the place of the worker among those of its pool, from 0, and below `slots`.
        """

    def explain(self, slot: int, code: int | None, said: str) -> str:
        """Says why a worker could not be started; nothing if there is no more to say.

        Args:
            code: how the command has ended; None: it has not, and the worker is being waited for.
            said: the last it has written to standard error, if workers are elsewhere.
        """
        return said

    def explain_loss(self, slot: int, code: int, said: str) -> str:
        """Says how a worker has ended that had been started, if that was not of its own.

        Args:
            code, said: as for `explain`; the worker has written there too.

        Returns:
            Words that follow its name in a sentence, as "was cancelled"; nothing: the code says it
            all.
        """
        return ""
