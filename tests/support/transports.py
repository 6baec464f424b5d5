"""The two ends of a transport's connections, for tests of one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from wool.abc import Connection, ConnectionLost, Handler, Listener, Tls, Transport


async def read(connection: Connection, count: int) -> list[bytes]:
    """The next `count` messages; fails if there are more at once."""
    got: list[bytes] = []
    async with asyncio.timeout(30):
        while len(got) < count:
            got += map(bytes, await connection.receive())
    assert len(got) == count
    return got


async def lost(connection: Connection, match: str | None = None) -> None:
    """Checks that nothing more comes, and nothing more can be sent."""
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionLost, match=match):
            await connection.receive()
        with pytest.raises(ConnectionLost, match=match):
            await connection.send([[b"x"]])


async def echo(connection: Connection) -> None:
    """A handler."""
    connection.receive_limit = connection.max_message_size
    try:
        while True:
            await connection.send([[message] for message in await connection.receive()])
    except ConnectionLost:
        pass


async def answered(connection: Connection, data: bytes = b"are you there?") -> None:
    """Checks that the other end echoes."""
    await connection.send([[data]])
    assert await read(connection, 1) == [data]


async def dial(
    transport: Transport, address: str, credentials: Tls | None = None, timeout: float = 10.0
) -> Any:
    connection = await transport.connect(address, credentials=credentials, timeout=timeout)
    connection.receive_limit = connection.max_message_size
    return connection


class Served:
    """A listener that is being served; by default it keeps its connections."""

    def __init__(self, listener: Listener) -> None:
        self.listener = cast(Any, listener)
        self.address = listener.address
        self.connections: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.address.partition("://")[2].partition("/")[0].rpartition(":")
        return host.strip("[]"), int(port)

    async def keep(self, connection: Connection) -> None:
        self.connections.put_nowait(connection)
        await asyncio.get_running_loop().create_future()

    async def next(self, *, stranger: bool = False) -> Any:
        async with asyncio.timeout(30):  # it may be a process that has to start
            connection = await self.connections.get()
        if not stranger:
            connection.receive_limit = connection.max_message_size
        return connection


@asynccontextmanager
async def serving(
    transport: Transport,
    address: str | None = None,
    credentials: Tls | None = None,
    handler: Handler | None = None,
) -> AsyncGenerator[Served]:
    served = Served(await transport.listen(address, credentials=credentials))
    task = asyncio.create_task(served.listener.serve(handler or served.keep))
    try:
        yield served
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await served.listener.aclose()


@asynccontextmanager
async def connected(
    transport: Transport, credentials: Tls | None = None
) -> AsyncGenerator[tuple[Any, Any]]:
    """The two ends of a connection."""
    async with serving(transport, None, credentials) as served:
        ours = await dial(transport, served.address, credentials)
        try:
            yield ours, await served.next()
        finally:
            await ours.aclose()


async def stranger(place: tuple[str, int], says: bytes = b"") -> socket.socket:
    """Dials, says something, and leaves it at that."""
    sock, loop = socket.socket(), asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_connect(sock, place)
    with suppress(OSError):
        await loop.sock_sendall(sock, says)
    return sock
