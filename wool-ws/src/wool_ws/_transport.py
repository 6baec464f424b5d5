"""The transport: dials, and opens listeners."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.uri import WebSocketURI

from wool import abc
from wool_ws import Options, _addresses, _errors, _sockets
from wool_ws._addresses import Address
from wool_ws._connection import FLUSH, WebSocket
from wool_ws._listener import WebSocketListener
from wool_ws._upgrade import MAX_SIZE, SILENT, HungUp, Upgrade

HANDSHAKE = 10.0
"""Seconds the TLS handshake may take."""

MAX_ANSWER = 1 << 20
"""Bytes in which the answer to the HTTP request must end, with the page of an error."""


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
            sock = await _sockets.listen(place)
        except (OSError, UnicodeError) as error:
            raise abc.ConnectFailed(f"cannot listen at {place}: {_errors.words(error)}") from error
        if not place.socket:
            number, port = sock.getsockname()[:2]
            wildcard = _addresses.is_wildcard(number)  # "0" is one, too
            host = abc.outward_host(6 if ":" in number else 4) if wildcard else place.host
            place = dataclasses.replace(place, host=host, port=port, secure=context is not None)
        return WebSocketListener(sock, place, context, self._options)

    async def _dial(self, place: Address, credentials: abc.Tls | None, timeout: float) -> WebSocket:
        """Connects to whichever number of a host answers, not only below TLS.

        The network may take the first packets to one, and lose the larger ones of TLS.
        """
        context = credentials.client_context() if credentials is not None else None
        port = _sockets.PORTS[context is not None] if place.port is None else place.port
        loop = asyncio.get_running_loop()
        ends, stalled = loop.time() + timeout, False
        try:
            numbers = await _sockets.resolve(place, port)
        except (OSError, UnicodeError) as error:
            raise _errors.not_reached(place, error) from error
        while True:
            try:
                sock, numbers = await _sockets.dial(numbers)
            except OSError as error:
                if stalled:
                    raise _errors.timed_out(place, timeout) from error
                raise _errors.not_reached(place, error) from error
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
        upgrade = Upgrade(protocol, MAX_ANSWER)
        try:
            name = None
            if credentials is not None:
                # No certificate has the interface that a link-local address names, which is one of
                # this machine, or the dot that says that a name is complete.
                name = (credentials.server_name or place.host).partition("%")[0].rstrip(".")
            try:
                await _attach(upgrade, sock, context, name)
            except (OSError, ValueError) as error:
                raise _errors.no_tls(place, error) from error
            try:
                return await self._open(protocol, upgrade)
            except (OSError, InvalidHandshake, HungUp) as error:
                encrypted = context is not None
                raise _errors.no_websocket(place, error, encrypted=encrypted) from error
        except BaseException:
            if upgrade.transport is None:
                sock.close()
            upgrade.abort()
            raise

    async def _open(self, protocol: ClientProtocol, upgrade: Upgrade) -> WebSocket:
        """Asks for a WebSocket."""
        request = protocol.connect()
        request.headers["User-Agent"] = "wool-ws"
        protocol.send_request(request)
        upgrade.flush()
        await upgrade.head()
        transport = upgrade.transport
        assert transport is not None
        known = _sockets.facts(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            known["certificate"] = tls.getpeercert(binary_form=True)
        return WebSocket(protocol, transport, upgrade.early, known=known, options=self._options)


async def _attach(
    upgrade: Upgrade, sock: socket.socket, context: ssl.SSLContext | None, name: str | None
) -> None:
    """Hands a connected socket to the loop, which goes through the TLS handshake if need be."""
    loop = asyncio.get_running_loop()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        connect = loop.create_connection
    else:
        connect = loop.create_unix_connection
    await connect(
        lambda: upgrade,
        sock=sock,
        ssl=context,
        server_hostname=name,
        ssl_handshake_timeout=HANDSHAKE if context is not None else None,
        ssl_shutdown_timeout=FLUSH if context is not None else None,
    )
