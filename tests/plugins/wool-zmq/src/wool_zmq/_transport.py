"""The transport, and the side that dials: one DEALER socket for each connection."""

from __future__ import annotations

import asyncio
import os
import tempfile

import zmq

from wool.abc import ConnectFailed, Connection, Listener, Tls, Transport
from wool_zmq._connection import HELLO, ZmqConnection, uid_of
from wool_zmq._listener import ZmqListener
from wool_zmq._sockets import Monitored


class Dialled(ZmqConnection):
    """A connection that we have dialled, over a socket that is told not to dial again."""

    def __init__(self) -> None:
        options = {zmq.RECONNECT_IVL: -1, zmq.RCVHWM: 0}
        events = zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
        self.dealer = Monitored(zmq.DEALER, options, events, self._on_message, self._on_event)
        super().__init__(self.dealer.post, lambda: None)
        self._refused = self._welcome = False

    async def open(self, path: str) -> None:
        """Dials, and waits to be welcome."""
        try:
            self.dealer.socket.connect(f"ipc://{path}")
            self.dealer.post([HELLO])
        except zmq.ZMQError as error:
            raise ConnectFailed(f"zmq+unix://{path}: {error}") from None
        while not self._welcome:
            if self.ended is not None:
                reason = "refused" if self._refused else "unknown"
                raise ConnectFailed(f"zmq+unix://{path}: {self.ended}", reason=reason)
            await self.news()

    def _on_message(self, message: list[zmq.Frame]) -> None:
        kind, *parts = message
        if kind.bytes == HELLO:
            self.uid, self._welcome = uid_of(kind), True
        self.take(kind.bytes, parts)

    def _on_event(self, event: int, descriptor: int) -> None:
        self._refused = event == zmq.EVENT_CLOSED
        self.over("nobody listens there" if self._refused else "the peer is gone")

    async def aclose(self) -> None:
        await super().aclose()
        self.dealer.close()


class ZmqTransport(Transport):
    """Connects processes of one machine."""

    async def connect(self, address: str, *, credentials: Tls | None, timeout: float) -> Connection:
        path = _path(address, credentials)
        connection = Dialled()
        try:
            async with asyncio.timeout(timeout):
                await connection.open(path)
        except BaseException as error:
            connection.dealer.close()
            if isinstance(error, TimeoutError):
                raise ConnectFailed(f"{address} does not answer", reason="timeout") from None
            raise
        return connection

    async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
        folder = tempfile.mkdtemp(prefix="zmq-") if address is None else None
        path = _path(address or f"zmq+unix://{folder}/s", credentials)
        try:
            return ZmqListener(path, folder)
        except (OSError, zmq.ZMQError) as error:
            raise ConnectFailed(f"cannot listen at {path}: {error}") from None


def _path(address: str, credentials: Tls | None) -> str:
    if credentials is not None:
        raise ConnectFailed("the transport 'zmq' has no TLS", reason="tls")
    path = address.partition("://")[2]
    if not path.startswith("/") or len(os.fsencode(path)) > 100:
        raise ConnectFailed(f"{address!r} is not zmq+unix:///path with at most 100 bytes")
    return path
