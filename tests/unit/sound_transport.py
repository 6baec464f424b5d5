"""A small transport over TCP, in clear or with TLS: what the kit is tried on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    Handler,
    Listener,
    MessageTooLarge,
    Segments,
    Tls,
    Transport,
)

GREETING = b"tcp!"


class TcpConnection(Connection):
    """A message is `<u32 length> bytes`."""

    max_message_size = 4 << 20

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.closing: asyncio.Task[None] | None = None
        self.size: int | None = None  # of the message that is under way
        writer.transport.set_write_buffer_limits(high=1 << 20)

    async def send(self, messages: Sequence[Segments]) -> None:
        whole = [b"".join(segments) for segments in messages]
        if max(map(len, whole), default=0) > self.max_message_size:
            raise MessageTooLarge(f"at most {self.max_message_size} bytes")
        if self.writer.is_closing() or self.reader._eof:  # it would be logged
            raise ConnectionLost("the connection is closed")
        for message in whole:
            self.writer.write(len(message).to_bytes(4, "big") + message)
        try:
            await self.writer.drain()
        except OSError as error:
            raise ConnectionLost(str(error)) from None

    async def receive(self) -> Sequence[bytes | memoryview]:
        try:
            if self.size is None:
                self.size = int.from_bytes(await self.reader.readexactly(4), "big")
            if self.size > self.receive_limit:
                self.writer.transport.abort()
                raise ConnectionLost("the peer sends too much")
            message = await self.reader.readexactly(self.size)
        except (asyncio.IncompleteReadError, OSError):
            self.close()
            raise ConnectionLost("the peer closed the connection") from None
        self.size = None
        return [message]

    async def aclose(self) -> None:
        self.close()
        if self.closing is None:  # cancelling `wait_closed` would spoil it for others
            self.closing = asyncio.ensure_future(self.wait_closed())
        self.give_up(5)
        try:
            await asyncio.shield(self.closing)
        finally:
            self.giving_up.cancel()

    def give_up(self, looks: int) -> None:
        if looks:  # a process that is stopped for a while loses one of them
            loop = asyncio.get_running_loop()
            self.giving_up = loop.call_later(0.1, self.give_up, looks - 1)
        else:
            self.writer.transport.abort()

    def close(self) -> None:
        if not self.writer.is_closing():  # closing twice makes TLS forget what to abort
            self.writer.close()

    async def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def extra(self, attribute: str, default: Any = None) -> Any:
        if attribute == "certificate":
            tls = self.writer.get_extra_info("ssl_object")
            return tls.getpeercert(True) or default if tls else default
        return "tcp" if attribute == "peer" else default


class TcpListener(Listener):
    server: asyncio.Server
    connection = TcpConnection

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.early: list[TcpConnection] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.server = await asyncio.start_server(self.accept, host, port, ssl=tls)
        host, port = self.server.sockets[0].getsockname()[:2]
        self.address = f"tcp://{self.told(host)}:{port}"

    def told(self, host: str) -> str:
        return socket.gethostname() if host == "0.0.0.0" else host

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self.connection(reader, writer)
        if self.handler is None:
            self.early.append(connection)
        else:
            self.start(connection)

    def start(self, connection: TcpConnection) -> None:
        task = asyncio.ensure_future(self.handle(connection))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def handle(self, connection: TcpConnection) -> None:
        try:
            await self.greet(connection)
            await self.run(connection)
        finally:
            await connection.aclose()

    async def greet(self, connection: TcpConnection) -> None:
        connection.writer.write(GREETING)

    async def run(self, connection: TcpConnection) -> None:
        assert self.handler is not None
        with contextlib.suppress(Exception):
            await self.handler(connection)

    async def serve(self, handler: Handler) -> None:
        self.handler = handler
        while self.early:
            self.start(self.early.pop(0))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.aclose()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def aclose(self) -> None:
        self.server.close()
        while self.early:
            await self.early.pop().aclose()


class TcpTransport(Transport):
    connection = TcpConnection
    listener = TcpListener

    async def connect(self, address: str, *, credentials: Tls | None, timeout: float) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                return await self.dial(*split(address), credentials)
        except ssl.SSLError as error:
            raise ConnectFailed(f"{address}: {error}", reason="tls") from None
        except TimeoutError:
            raise ConnectFailed(f"{address} does not answer", reason="timeout") from None
        except asyncio.IncompleteReadError:
            raise ConnectFailed(f"{address} does not speak tcp") from None
        except OSError as error:
            refused = error.errno == errno.ECONNREFUSED
            reason = "refused" if refused else "unknown"
            raise ConnectFailed(f"{address}: {error}", reason=reason) from None

    async def dial(self, host: str, port: int, credentials: Tls | None) -> Connection:
        name = (credentials.server_name or host) if credentials else None
        reader, writer = await asyncio.open_connection(
            host, port, ssl=self.client_tls(credentials), server_hostname=name
        )
        try:
            if await reader.readexactly(len(GREETING)) != GREETING:
                raise OSError("it speaks something else")
        except BaseException:
            writer.transport.abort()
            raise
        return self.connection(reader, writer)

    async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
        listener = self.listener()
        listener.connection = self.connection
        try:
            await listener.open(
                *split(address or "tcp://127.0.0.1:0"), self.server_tls(credentials)
            )
        except OSError as error:
            raise ConnectFailed(f"{address}: {error}") from None
        return listener

    def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
        return credentials.client_context() if credentials else None

    def server_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
        return credentials.server_context() if credentials else None


def split(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address)
        assert parts.hostname and parts.port is not None
    except (ValueError, AssertionError):
        raise ConnectFailed(f"{address} is not tcp://host:port") from None
    return parts.hostname, parts.port
