"""Runs the handshake over a connection, within a deadline."""

from __future__ import annotations

import asyncio
import contextlib

from wool import abc
from wool._addresses import is_socket
from wool._peer.routes import Route, check_socket
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.connection import Machine
from wool._protocol.handshake import Handshake, Role, refusal
from wool._security.credentials import Acceptor, Authenticator
from wool.exceptions import AuthenticationError, ConnectFailed, ConnectionLost, WoolError

DEADLINE = 10.0
"""Seconds a peer has to authenticate itself."""

RECEIVE_LIMIT = 3 << 20
"""Largest message in bytes once authenticated: the largest header and a chunk."""


async def dial(
    route: Route,
    address: str,
    hello: f.Hello,
    credentials: Authenticator,
    timeout: float = DEADLINE,
) -> tuple[Session, f.Welcome]:
    """Connects to a worker and authenticates both sides.

    Args:
        timeout: seconds for all of it.

    Raises:
        ConnectFailed, ConnectionLost: the worker cannot be reached.
        VersionMismatch, AuthenticationError, ProtocolError: it can, but not be used.
    """
    ends = asyncio.get_running_loop().time() + timeout
    if is_socket(address):
        check_socket(address)
    tls = None if route.local else credentials.client_tls()
    try:
        connection = await route.transport.connect(address, credentials=tls, timeout=timeout)
    except ConnectFailed as error:
        if error.reason == "tls":
            raise AuthenticationError(str(error)) from error
        raise
    except OSError as error:  # too many open files, when TLS reads its keys
        raise ConnectFailed(f"{address}: {error.strerror or error}") from error
    try:
        credentials.check_peer(connection)
        binding = b"" if tls is None else credentials.binding(connection)
    except BaseException:
        await connection.aclose()
        raise
    handshake = Handshake(Role.DIALLER, hello, credentials.secret, binding=binding)
    session = await _run(connection, handshake, hello, timeout, ends)
    assert handshake.welcome is not None
    return session, handshake.welcome


async def accept(
    connection: abc.Connection, hello: f.Hello, acceptor: Acceptor, welcome: f.Welcome
) -> Session:
    """Authenticates a peer that has connected; it is told why if it is refused.

    Raises: as `dial`.
    """
    credentials, binding = acceptor.credentials, acceptor.binding
    try:
        credentials.check_peer(connection)
    except BaseException:
        await connection.aclose()
        raise
    secret = credentials.secret
    handshake = Handshake(Role.ACCEPTOR, hello, secret, binding=binding, welcome=welcome)
    ends = asyncio.get_running_loop().time() + DEADLINE
    return await _run(connection, handshake, hello, DEADLINE, ends)


async def _run(
    connection: abc.Connection, handshake: Handshake, hello: f.Hello, timeout: float, ends: float
) -> Session:
    """Shakes hands until `ends`, in the loop's time, which is `timeout` after the beginning."""
    try:
        async with asyncio.timeout_at(ends):
            rest = await _exchange(connection, handshake)
    except TimeoutError:
        await connection.aclose()
        raise ConnectFailed(
            f"the peer did not finish the handshake within {timeout:g} s", reason="timeout"
        ) from None
    except BaseException as error:
        if isinstance(error, WoolError) and not isinstance(error, ConnectionLost):
            with contextlib.suppress(WoolError):
                await connection.send([[refusal(error)]])
        await connection.aclose()
        raise
    peer = handshake.peer
    assert peer is not None
    machine = Machine(
        dialler=handshake.role is Role.DIALLER,
        peer_window=peer.window,
        peer_chunk=min(peer.chunk, connection.max_message_size - 65536),
        window=hello.window,
    )
    return Session(connection, machine, peer, early=rest)


async def _exchange(connection: abc.Connection, handshake: Handshake) -> list[bytes | memoryview]:
    """Exchanges messages until the handshake is complete; returns what came after it."""
    with contextlib.suppress(ConnectionLost):  # it may have said why, which is read below
        await connection.send([[m] for m in handshake.start()])
    while True:
        messages = list(await connection.receive())
        while messages:
            answer = handshake.receive(messages.pop(0))
            if handshake.complete:  # and the peer may send large messages once it knows
                connection.receive_limit = RECEIVE_LIMIT
            if answer:
                with contextlib.suppress(ConnectionLost):  # as above
                    await connection.send([[m] for m in answer])
            if handshake.complete:
                return messages
