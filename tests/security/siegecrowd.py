"""The program of a crowd: clients that begin to connect and never finish, thousands of them."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import wool
from security.siegepeers import Caller, dial
from security.siegeproxies import host_and_port, unverified
from wool import abc
from wool._addresses import is_socket
from wool._security.credentials import Authenticator, PoolSecret, Token
from wool._worker.transports import Transports
from wool.exceptions import WoolError

AT_ONCE = 64
"""How many are on their way at a time."""


class Crowd:
    """Clients of one kind.

    Args:
        address: of the worker.
        stage: how far they get before they fall silent.
        held: so many stay; if there are more the oldest leave.
    """

    def __init__(self, address: str, stage: str, held: int) -> None:
        self._address = address
        self._begin: Callable[[], Awaitable[Callable[[], None]]] = getattr(self, f"_{stage}")
        self._held = held
        self._here: deque[Callable[[], None]] = deque()
        self._local = is_socket(address)
        guess = wool.Credentials.new_token()
        self._credentials: Authenticator = PoolSecret() if self._local else Token(guess)
        self._context = unverified()
        self._context.set_alpn_protocols(["h2"] if address.startswith("grpc") else [])
        self._routes = Transports({}).routes
        self._kept: set[abc.Connection] = set()

    async def come(self, count: int) -> None:
        """Has so many more of them come."""
        numbers = iter(range(count))

        async def some() -> None:
            for _ in numbers:
                with suppress(OSError, WoolError):
                    self._here.append(await self._begin())
                while len(self._here) > self._held:
                    self._here.popleft()()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _connected(self) -> Callable[[], None]:
        """They connect a socket."""
        return (await self._socket()).close

    async def _socket(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        if self._local:
            sock, place = socket.socket(socket.AF_UNIX), self._address.partition("://")[2]
        else:
            sock, place = socket.socket(), host_and_port(self._address)
        sock.setblocking(False)
        while True:
            try:
                await loop.sock_connect(sock, place)
                return sock
            except BlockingIOError:  # too many are waiting to be accepted at a Unix socket
                await asyncio.sleep(0.01)

    async def _encrypted(self) -> Callable[[], None]:
        """They go through the handshake of TLS."""
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=await self._socket(), ssl=self._context, server_hostname=""
        )
        return transport.abort

    async def _open(self) -> Callable[[], None]:
        """They go through all that the transport needs."""
        connection = await dial(self._address, self._credentials, self._routes)
        return lambda: self._close(connection)

    async def _greeted(self) -> Callable[[], None]:
        """They say hello."""
        connection = await dial(self._address, self._credentials, self._routes)
        caller = Caller(connection, self._credentials, self._local)
        await caller.say(caller.hello)
        return lambda: self._close(connection)

    def _close(self, connection: abc.Connection) -> None:
        closing = asyncio.ensure_future(connection.aclose())
        self._kept.add(connection)
        closing.add_done_callback(lambda _: self._kept.discard(connection))


async def main() -> None:
    """Does what each line of standard input says: how many more are to come."""
    address, stage, held = json.loads(sys.argv[1])
    crowd = Crowd(address, stage, held)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await crowd.come(int(line))
        print("here", flush=True)


asyncio.run(main())
