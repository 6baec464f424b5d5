"""Accepting connections: strangers first, WebSockets once they have shown to be such."""

from __future__ import annotations

import asyncio
import socket
import ssl
import traceback
from http import HTTPStatus

from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from wool import abc
from wool_ws import Options, _sockets
from wool_ws._addresses import Address
from wool_ws._connection import FLUSH, WebSocket
from wool_ws._upgrade import MAX_SIZE, SILENT, HungUp, Upgrade

DEADLINE = 10.0
"""Seconds a stranger has for the TLS handshake and the HTTP request together."""

STRANGERS = 256
"""How many may be at that at once; those who have been longest make room for others."""

MAX_REQUEST = 16 << 10
"""Bytes in which an HTTP request must end."""

_PAUSE = 0.1
"""Seconds until the next attempt if none can be accepted, for lack of descriptors mostly."""

_FORWARDED = ("Forwarded", "X-Forwarded-For")


class WebSocketListener(abc.Listener):
    """A listening socket.

    Args:
        sock: the socket.
        address: how others reach it.
        context: how connections are secured; None: not.
        options: the transport's.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        context: ssl.SSLContext | None,
        options: Options,
    ) -> None:
        self.address = str(address)
        self._place = address
        self._sock = sock
        self._context = context
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], socket.socket] = {}  # the oldest come first
        self._closed = False

    async def serve(self, handler: abc.Handler) -> None:
        self._watch(handler)
        try:
            await asyncio.shield(self._ended)
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self.aclose()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._ended.set_result(None)
        for task in self._strangers:
            task.cancel()
        self._sock.close()
        if self._place.socket:
            _sockets.remove(self._place.socket)

    def _watch(self, handler: abc.Handler) -> None:
        """Accepts whoever comes, from now on."""
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept, handler)

    def _accept(self, handler: abc.Handler) -> None:
        """Accepts one; a crowd at the door must not keep the loop from turning."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # whoever it was has gone
        except OSError:
            self._loop.remove_reader(self._sock)
            self._loop.call_later(_PAUSE, self._watch, handler)
            self._drop_oldest()
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._attend(sock, handler))
        self._tasks.add(task)
        self._strangers[task] = sock
        task.add_done_callback(self._forget)
        if len(self._strangers) > STRANGERS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        for task in self._strangers:
            task.cancel()
            del self._strangers[task]
            break

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        sock = self._strangers.pop(task, None)
        if sock is not None:  # cancelled before it began
            sock.close()

    async def _attend(self, sock: socket.socket, handler: abc.Handler) -> None:
        """Does everything for one connection."""
        protocol = ServerProtocol(origins=[None], max_size=MAX_SIZE, logger=SILENT)
        upgrade = Upgrade(protocol, MAX_REQUEST)
        websocket: WebSocket | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                websocket = await self._admit(sock, protocol, upgrade)
        except BaseException as error:
            # Else the buffers of asyncio's TLS, 256 KiB each, wait for the garbage collector.
            _forget(error)
            if not isinstance(error, (OSError, InvalidHandshake, HungUp)):
                raise
            return  # the peer knows what it did; TimeoutError and ssl.SSLError are OSErrors too
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._strangers.pop(task, None)
            if websocket is None:
                upgrade.abort()
                del upgrade, protocol
        if websocket is not None:
            try:
                await handler(websocket)
            finally:
                await websocket.aclose()

    async def _admit(
        self, sock: socket.socket, protocol: ServerProtocol, upgrade: Upgrade
    ) -> WebSocket | None:
        """Goes through TLS and HTTP; None: the request was no more than that, and is answered."""
        secure = self._context is not None
        _sockets.at_once(sock)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: upgrade,
            sock,
            ssl=self._context,
            ssl_handshake_timeout=DEADLINE if secure else None,
            ssl_shutdown_timeout=FLUSH if secure else None,
        )
        try:
            request: Request = await upgrade.head()
            protocol.send_response(self._answer(protocol, request))
        finally:
            upgrade.flush()  # websockets itself answers requests that are malformed
        transport = upgrade.transport
        assert transport is not None
        if protocol.state is OPEN:
            known = _sockets.facts(transport)
            if any(name in request.headers for name in _FORWARDED):
                known = {"peer": known.get("peer", "a proxy")}  # the rest is about the proxy
            return WebSocket(protocol, transport, upgrade.early, known=known, options=self._options)
        transport.close()
        await upgrade.closed
        return None

    def _answer(self, protocol: ServerProtocol, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == self._place.path:
            return protocol.accept(request)
        if self._options.health and path == self._options.health:
            answer = protocol.reject(HTTPStatus.OK, "ok\n")
        else:
            answer = protocol.reject(HTTPStatus.NOT_FOUND, "not found\n")
        if request.method == "HEAD":
            answer.body = b""
        return answer


def _forget(error: BaseException) -> None:
    """Lets go of what the functions had in hand that an error, or what led to it, has ended."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
