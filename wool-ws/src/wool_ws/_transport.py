"""The transport: dials, and opens listeners."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import socket
import ssl
from functools import partial
from http import HTTPStatus

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from wool import abc
from wool._transports import failures, sockets
from wool._transports.listener import SocketListener
from wool_ws import Options, _addresses, _errors
from wool_ws._addresses import Address
from wool_ws._connection import MAX_SIZE, SILENT, HungUp, WebSocket

MAX_REQUEST = 16 << 10
"""Bytes in which an HTTP request must end."""

MAX_ANSWER = 1 << 20
"""Bytes in which the answer to it must end, with the page of an error."""

PORTS = {False: 80, True: 443}
"""Where to dial if the address has no port: without TLS, and with it."""

_FORWARDED = ("Forwarded", "X-Forwarded-For")


class WebSocketTransport(abc.Transport):
    """Connects processes by WebSockets."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        place = _addresses.parse(address, self._options.path)
        if place.secure and credentials is None:
            raise abc.ConnectFailed(f"{place}: {_errors.NEEDS_CREDENTIALS}", reason="tls")
        try:
            async with asyncio.timeout(timeout):
                return await self._dial(place, credentials, timeout)
        except TimeoutError:
            raise _errors.timed_out(place, timeout) from None

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        place = _addresses.parse(address or "ws://127.0.0.1:0", self._options.path)
        if place.secure and credentials is None:
            text = f"cannot listen at {place}: TLS needs credentials, such as a token"
            raise abc.ConnectFailed(text, reason="tls")
        if place.path == self._options.health:
            raise abc.ConnectFailed(
                f"cannot listen at {place}: {place.path} is where health is asked for; "
                "choose another path, or another `health`"
            )
        context = credentials.server_context() if credentials is not None else None
        try:
            sock = sockets.listen((await _places(place, place.port or 0))[0])
        except (OSError, UnicodeError) as error:
            raise abc.ConnectFailed(f"cannot listen at {place}: {failures.words(error)}") from error
        if not place.socket:
            number, port = sock.getsockname()[:2]
            wildcard = ipaddress.ip_address(number).is_unspecified  # "0" is one, too
            host = abc.outward_host(6 if ":" in number else 4) if wildcard else place.host
            place = dataclasses.replace(place, host=host, port=port, secure=context is not None)
        return SocketListener(
            sock,
            str(place),
            partial(self._admit, place, context),
            partial(sockets.remove, place.socket),
            (InvalidHandshake, HungUp),
        )

    # Dialling -------------------------------------------------------------------------------------

    async def _dial(self, place: Address, credentials: abc.Tls | None, timeout: float) -> WebSocket:
        """Connects to whichever number of a host answers, not only below TLS.

        The network may take the first packets to one, and lose the larger ones of TLS.
        """
        context = credentials.client_context() if credentials is not None else None
        port = PORTS[context is not None] if place.port is None else place.port
        loop = asyncio.get_running_loop()
        ends, stalled = loop.time() + timeout, False
        try:
            numbers = await _places(place, port)
        except (OSError, UnicodeError) as error:
            raise failures.not_reached(place, error) from error
        while True:
            try:
                sock, numbers = await sockets.dial(numbers)
            except OSError as error:
                if stalled:
                    raise _errors.timed_out(place, timeout) from error
                raise failures.not_reached(place, error) from error
            share = (ends - loop.time()) / (len(numbers) + 1) if numbers else None
            try:
                async with asyncio.timeout(share):
                    return await self._meet(place, port, sock, credentials, context)
            except TimeoutError:
                stalled = True

    async def _meet(
        self,
        place: Address,
        port: int,
        sock: socket.socket,
        credentials: abc.Tls | None,
        context: ssl.SSLContext | None,
    ) -> WebSocket:
        """Goes through the handshakes of TLS, if need be, and HTTP."""
        uri = WebSocketURI(context is not None, place.host, port, place.path, "")
        protocol = ClientProtocol(uri, max_size=MAX_SIZE, logger=SILENT)
        websocket = WebSocket(protocol, self._options, MAX_ANSWER)
        try:
            name = None
            if credentials is not None:
                # No certificate has the interface that a link-local address names, which is one of
                # this machine, or the dot that says that a name is complete.
                name = (credentials.server_name or place.host).partition("%")[0].rstrip(".")
            try:
                await sockets.attach(websocket, sock, tls=context, name=name)
            except (OSError, ValueError) as error:
                raise failures.no_tls(place, error, name) from error
            try:
                request = protocol.connect()
                request.headers["User-Agent"] = "wool-ws"
                protocol.send_request(request)
                websocket.respond()
                await websocket.head
            except (OSError, InvalidHandshake, HungUp) as error:
                encrypted = context is not None
                raise _errors.no_websocket(place, error, encrypted=encrypted) from error
        except BaseException:
            websocket.abort()
            if not websocket.attached:
                sock.close()
            raise
        websocket.upgraded()
        return websocket

    # Listening ------------------------------------------------------------------------------------

    async def _admit(
        self, place: Address, context: ssl.SSLContext | None, sock: socket.socket
    ) -> WebSocket | None:
        """Goes through TLS and HTTP; None: the request was no more than that, and is answered."""
        protocol = ServerProtocol(origins=[None], max_size=MAX_SIZE, logger=SILENT)
        websocket = WebSocket(protocol, self._options, MAX_REQUEST)
        sockets.at_once(sock)
        try:
            await sockets.attach(websocket, sock, tls=context, accepted=True)
            try:
                request: Request = await websocket.head
                protocol.send_response(self._answer(place, protocol, request))
            finally:
                websocket.respond()  # websockets itself answers requests that are malformed
            if protocol.state is not State.OPEN:
                await websocket.hang_up()
                return None
        except BaseException:
            websocket.abort()
            raise
        websocket.upgraded(proxied=any(name in request.headers for name in _FORWARDED))
        return websocket

    def _answer(self, place: Address, protocol: ServerProtocol, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == place.path:
            return protocol.accept(request)
        if self._options.health and path == self._options.health:
            answer = protocol.reject(HTTPStatus.OK, "ok\n")
        else:
            answer = protocol.reject(HTTPStatus.NOT_FOUND, "not found\n")
        if request.method == "HEAD":
            answer.body = b""
        return answer


async def _places(place: Address, port: int) -> list[sockets.Place]:
    """Returns what an address names: of a host, a place for each of its numbers.

    Raises:
        OSError, UnicodeError: there are none.
    """
    if place.socket:
        return [sockets.unix_place(place.socket)]
    return await sockets.resolve(place.host, port)
