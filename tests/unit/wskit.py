"""What tests of `wool_ws` share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trustme

from wool.abc import ConnectFailed, Connection, ConnectionLost, Listener, Pem, Tls
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

MIB = 1 << 20


@dataclass(kw_only=True)
class GivenTls(Tls):
    """TLS of one side: what it shows, and whom it trusts."""

    shows: trustme.LeafCert | None = None
    trusts: trustme.CA | None = None
    verify: bool = True
    server_name: str | None = None
    asks_client: bool = False
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3

    def server_context(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        if self.asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.maximum_version = self.version
        if self.shows is not None:
            self.shows.configure_cert(context)
        if self.trusts is not None:
            self.trusts.configure_trust(context)
        return context

    def server_pem(self) -> Pem:
        raise NotImplementedError

    def client_pem(self) -> Pem:
        raise NotImplementedError


async def until(condition: Callable[[], Any]) -> None:
    """Waits for something that nothing announces."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


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


async def failing(
    address: str, credentials: Tls | None = None, timeout: float = 10.0, **options: Any
) -> ConnectFailed:
    """The error of an attempt to connect, whose message begins with the address."""
    with pytest.raises(ConnectFailed) as raised:
        await dial(address, credentials, timeout, **options)
    assert address.partition("://")[2].partition("/")[0] in str(raised.value)
    return raised.value


async def dial(
    address: str, credentials: Tls | None = None, timeout: float = 10.0, **options: Any
) -> Any:
    transport = WebSocketTransport(Options(**options))
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
    address: str | None = None,
    credentials: Tls | None = None,
    handler: Any = None,
    **options: Any,
) -> AsyncIterator[Served]:
    transport = WebSocketTransport(Options(**options))
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
    credentials: Tls | None = None, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """The two ends of a connection."""
    async with serving(None, credentials, **options) as served:
        ours = await dial(served.address, credentials, **options)
        try:
            yield ours, await served.next()
        finally:
            await ours.aclose()


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[str]:
    """Something that answers whatever it is told with the same bytes, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
