"""Peers of one's own making, which say what they like on the connections of a transport."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from security.siegekit import Target, calling
from support.jobs import add
from wool import abc
from wool._client.identity import PYTHON, VERSION
from wool._peer.routes import Route, Routes
from wool._protocol import frames as f
from wool._protocol.handshake import PROTOCOLS, Handshake, Role
from wool._security.credentials import Authenticator
from wool._worker.transports import Transports
from wool.exceptions import ConnectionLost, ProtocolError

PATIENCE = 30.0
"""Seconds after which a connection that should have ended never will."""


AT_ONCE = 16
"""How many things are done side by side."""


class Intruder:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.trace), 0o777, True)


async def dial(
    address: str, credentials: Authenticator, routes: Routes | None = None
) -> abc.Connection:
    """Connects as a caller with these credentials would, and says nothing."""
    route = (routes or Transports({}).routes).to(address)
    tls = None if route.local else credentials.client_tls()
    return await route.transport.connect(address, credentials=tls, timeout=PATIENCE)


def greeting(credentials: Authenticator, **others: Any) -> f.Hello:
    """Returns what a caller says of itself."""
    usual = f.Hello(
        protocols=list(PROTOCOLS),
        nonce=os.urandom(32),
        wool=VERSION,
        python=PYTHON,
        serializers=["cloudpickle"],
        serializer="cloudpickle",
        process=os.urandom(16),
        window=1 << 20,
        chunk=1 << 18,
        pool="siege",
        security=credentials.kind,
    )
    return changed(usual, **others)


def changed(message: f.Hello, **others: Any) -> f.Hello:
    """Returns a Hello that differs in some fields."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return f.Hello(**fields | others)


class Caller:
    """A caller that does what a test tells it to.

    Args:
        connection: past the transport's own handshake.
        credentials: what it proves to know.
    """

    def __init__(self, connection: abc.Connection, credentials: Authenticator, local: bool) -> None:
        self.connection = connection
        self._secret = credentials.secret
        self._binding = b"" if local else credentials.binding(connection)
        self.greet_with(f.encode(greeting(credentials)))

    def greet_with(self, message: bytes) -> None:
        """Chooses the Hello to say."""
        mine = f.decode_handshake(message)
        assert isinstance(mine, f.Hello)
        self.hello = message
        self._handshake = Handshake(Role.DIALLER, mine, self._secret, binding=self._binding)

    @classmethod
    async def at(
        cls,
        target: Target,
        credentials: Authenticator | None = None,
        routes: Routes | None = None,
    ) -> Caller:
        """Connects; the credentials are by default the right ones."""
        credentials = credentials or target.credentials
        connection = await dial(target.address, credentials, routes)
        return cls(connection, credentials, target.local)

    async def proof(self) -> bytes:
        """Says hello, and returns the proof that would be the answer to the worker's hello."""
        await self.say(self.hello)
        async with asyncio.timeout(PATIENCE):
            (worker,) = await self.connection.receive()
        return self._handshake.receive(worker)[0]

    async def enter(self) -> list[bytes]:
        """Goes through the handshake; returns what the worker has said."""
        await self.say(self.hello)
        said: list[bytes] = []
        async with asyncio.timeout(PATIENCE):
            while not self._handshake.complete:
                for message in await self.connection.receive():
                    said.append(bytes(message))
                    await self.say(*self._handshake.receive(message))
        self.connection.receive_limit = 1 << 20
        return said

    async def say(self, *messages: bytes) -> None:
        """Sends messages; what is lost since the worker has hung up is lost."""
        with suppress(ConnectionLost):
            await self.connection.send([[message] for message in messages])

    async def hear(self) -> list[f.Frame]:
        """Returns the frames of the next messages."""
        async with asyncio.timeout(PATIENCE):
            return [read(message) for message in await self.connection.receive()]

    async def leave(self) -> None:
        """Closes the connection."""
        await self.connection.aclose()

    async def end(self) -> str:
        """Waits for the worker to end the connection, and says what was heard of it."""
        return await ending(self.connection)


class UnixStream(abc.Connection):
    """Messages as the transport `unix` frames them, on a socket that can be cut off anywhere."""

    max_message_size = 1 << 20

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        for segments in messages:
            message = b"".join(segments)
            self._writer.write(struct.pack("<I", len(message)) + message)

    async def receive(self) -> list[bytes]:
        try:
            size = struct.unpack("<I", await self._reader.readexactly(4))[0]
            return [await self._reader.readexactly(size)]
        except (asyncio.IncompleteReadError, OSError):
            raise ConnectionLost("it has ended") from None

    @classmethod
    async def to(cls, path: str) -> UnixStream:
        """Connects."""
        return cls(*await asyncio.open_unix_connection(path))

    async def aclose(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)


def read(message: bytes | memoryview) -> f.Frame:
    """Decodes a message of the handshake or of later."""
    with suppress(ProtocolError):
        return f.decode_handshake(message)
    return f.decode_call(message)[0]


async def ending(connection: abc.Connection, patience: float = PATIENCE) -> str:
    """Waits for the peer to end a connection; returns the last of what it said before."""
    words = "nothing"
    try:
        async with asyncio.timeout(patience):
            while True:
                for message in await connection.receive():
                    words = told(read(message))
    except ConnectionLost:
        return f"{words}, then the connection ends"
    finally:
        await connection.aclose()


def told(frame: f.Frame) -> str:
    """Describes a frame."""
    if isinstance(frame, f.Refuse):
        return f"Refuse({frame.code or 'protocol'}): {frame.message}"
    return type(frame).__name__


async def refused(target: Target, *messages: bytes) -> str:
    """Says things to a worker that it must not like; returns how it ends the connection."""
    caller = await Caller.at(target)
    await caller.say(*messages)
    return await caller.end()


async def recorded(target: Target) -> list[bytes]:
    """Returns what a legitimate caller sends: Hello, Proof, an Open of `add(1, 2)`, and Peers."""
    sent: list[bytes] = []
    route = Transports({}).routes.to(target.address)
    recording = Recording(route.transport, sent)
    routes = Routes(lambda address: Route(recording, route.local))
    async with calling(target.address, target.credentials, routes):
        assert await add(1, 2) == 3
    by_kind = {type(read(message)): message for message in reversed(sent)}
    return [by_kind[kind] for kind in (f.Hello, f.Proof, f.Open, f.Peers)]


class Recording(abc.Transport):
    """Notes the messages that leave on connections of another transport."""

    def __init__(self, transport: abc.Transport, sent: list[bytes]) -> None:
        self._transport = transport
        self._sent = sent

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        connection: Any = await self._transport.connect(
            address, credentials=credentials, timeout=timeout
        )
        send = connection.send

        async def note(messages: Sequence[abc.Segments]) -> None:
            self._sent.extend(b"".join(segments) for segments in messages)
            await send(messages)

        connection.send = note
        connection.can_send_now = lambda: False
        return connection

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        raise NotImplementedError


def opening(example: bytes, payload: bytes | memoryview, **others: Any) -> bytes:
    """Returns an Open like another one, with this payload."""
    frame, _ = f.decode_call(example)
    assert isinstance(frame, f.Open)
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
    fields |= {"sizes": [len(payload)], "codes": []} | others
    return f.encode(f.Open(**fields)) + bytes(payload)


async def failure(work: Any) -> BaseException:
    """Returns what a call raises."""
    try:
        async with asyncio.timeout(PATIENCE):
            await work
    except TimeoutError:
        raise AssertionError("it hangs") from None
    except Exception as error:
        return error
    raise AssertionError("it succeeded")


async def side_by_side(works: Iterable[Callable[[], Awaitable[None]]]) -> int:
    """Runs many things, some at a time; returns how many there were."""
    done = 0
    queue = iter(list(works))

    async def some() -> None:
        nonlocal done
        for work in queue:
            await work()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return done
