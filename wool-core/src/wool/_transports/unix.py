"""Transport `unix`: Unix sockets of one user on one machine.

Wool keeps sockets in directories that only their user can enter; besides, the kernel is asked who
the peer is, on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from wool import abc
from wool._transports import failures, sockets
from wool._transports.listener import SocketListener
from wool._transports.stream import StreamConnection
from wool.plugins import API, TransportPlugin, hookimpl

MAX_PATH = 100


@dataclass(frozen=True, slots=True)
class Options:
    """The transport has no settings."""


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport."""
    yield TransportPlugin(
        name="unix",
        api=API,
        options=Options,
        factory=UnixTransport,
        capabilities=frozenset({"local", "uid", "unix"}),
    )


def _new_directory() -> str:
    import tempfile  # which workers of a pool do without

    return tempfile.mkdtemp(prefix="wool-")


class UnixTransport(abc.Transport):
    """Connects processes of one user on one machine."""

    def __init__(self, options: Options) -> None: ...

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        path, connection = _path(address), UnixConnection()
        try:
            async with asyncio.timeout(timeout):
                try:
                    sock = await sockets.dial_one(sockets.unix_place(path))
                    await sockets.attach(connection, sock)
                except BaseException:
                    connection.release()  # uvloop tells nobody that it has closed what it had made
                    raise
        except TimeoutError:
            raise abc.ConnectFailed(
                f"{address} did not accept a connection within {timeout:g} s", reason="timeout"
            ) from None
        except OSError as error:
            raise failures.not_reached(address, error) from error
        if not connection.is_same_user:
            await connection.aclose()
            raise abc.ConnectFailed(f"{address} belongs to another user")
        return connection

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        own = None if address else _new_directory()
        path = _path(address) if address else os.path.join(str(own), "socket")
        try:
            sock = sockets.listen(sockets.unix_place(path))
        except OSError as error:
            if own is not None:
                os.rmdir(own)
            text = f"cannot listen at {path}: {failures.words(error)}"
            raise abc.ConnectFailed(text) from error

        def leave() -> None:
            sockets.remove(path)
            if own is not None:
                with contextlib.suppress(OSError):
                    os.rmdir(own)

        return SocketListener(sock, f"unix://{path}", _admit, leave)


async def _admit(sock: socket.socket) -> UnixConnection | None:
    connection = UnixConnection()
    try:
        await sockets.attach(connection, sock, accepted=True)
    except BaseException:
        connection.release()
        raise
    if connection.is_same_user:
        return connection
    await connection.aclose()
    return None


class UnixConnection(StreamConnection):
    """Messages over a Unix socket."""

    @property
    def is_same_user(self) -> bool:
        """Whether the kernel says that the peer is of this user."""
        return self.extra("uid") == os.geteuid()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opened()


def _path(address: str) -> str:
    path = address.removeprefix("unix://")
    if len(os.fsencode(path)) > MAX_PATH:
        raise abc.ConnectFailed(f"{path!r} is longer than the {MAX_PATH} bytes a socket may have")
    return path
