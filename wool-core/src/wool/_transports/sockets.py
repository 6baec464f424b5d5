"""Sockets: dialled, listening, and what they know of the peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

Place = tuple[int, Any]
"""Family and address of a socket; of a Unix socket, the address is its path."""

BACKLOG = 1024

HEAD_START = 0.25
"""Seconds that one number of a host has before the next is tried as well (RFC 8305)."""

_BUFFER = 1 << 20
"""Bytes on their way through a Unix socket."""

_TLS_HANDSHAKE = 10.0
_TLS_SHUTDOWN = 1.0
"""Seconds that beginning and ending TLS may take."""

_INTERNET = (socket.AF_INET, socket.AF_INET6)


def unix_place(path: str) -> Place:
    """Returns the place of a Unix socket.

    Raises:
        OSError: this platform has none.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no Unix sockets")
    return socket.AF_UNIX, path


async def resolve(host: str, port: int) -> list[Place]:
    """Returns the places of a host, one for each number; of a number without asking anybody.

    Raises:
        OSError, UnicodeError: there are none.
    """
    import ipaddress  # which Unix sockets do without

    zone = "%" in host
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(host)
        if not zone:
            return [(socket.AF_INET if number.version == 4 else socket.AF_INET6, (host, port))]
    if zone:  # looked up for the number of the interface, which uvloop leaves out
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    else:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(entry[0], entry[4]) for entry in found]


# Dialling -----------------------------------------------------------------------------------------


async def dial(places: Sequence[Place]) -> tuple[socket.socket, list[Place]]:
    """Connects to one of several places: to the first that answers.

    Returns also those of the others that have not failed.

    Raises:
        OSError: none is reached. A cancelled `dial` leaves nothing open.
    """
    if len(places) == 1:
        return await dial_one(places[0]), []
    untried, attempts = deque(places), dict[asyncio.Task[socket.socket], Place]()
    failures: list[OSError] = []
    try:
        while untried or attempts:
            if untried:
                place = untried.popleft()
                attempts[asyncio.create_task(dial_one(place))] = place
            patience, when = HEAD_START if untried else None, asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=when)
            for attempt in done:
                del attempts[attempt]
                try:
                    return attempt.result(), [*attempts.values(), *untried]
                except OSError as error:
                    failures.append(error)
    finally:
        await _give_up(attempts)
    raise next((e for e in failures if isinstance(e, ConnectionRefusedError)), failures[0])


async def _give_up(attempts: Iterable[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()


async def dial_one(place: Place) -> socket.socket:
    """Connects to one place.

    Raises:
        OSError: it is not reached. A cancelled attempt leaves nothing open.
    """
    family, where = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family in _INTERNET:
            await asyncio.get_running_loop().sock_connect(sock, where)
            at_once(sock)
            return sock
        while True:  # no loop knows how to wait where others wait to be accepted
            try:
                sock.connect(where)
                return sock
            except BlockingIOError:  # there are too many, and nothing tells when there are fewer
                await asyncio.sleep(0.01)
    except BaseException:
        sock.close()
        raise


async def attach(
    protocol: asyncio.BaseProtocol,
    sock: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
    accepted: bool = False,
) -> None:
    """Hands a connected socket to the loop, which goes through TLS if need be.

    Args:
        name: of the peer that was dialled, for TLS.
        accepted: whether it was not dialled.
    """
    loop = asyncio.get_running_loop()
    times: dict[str, Any] = {}
    if tls is not None:
        times = {"ssl_handshake_timeout": _TLS_HANDSHAKE, "ssl_shutdown_timeout": _TLS_SHUTDOWN}
    if accepted:
        await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls, **times)
        return
    internet = sock.family in _INTERNET
    connect = loop.create_connection if internet else loop.create_unix_connection
    await connect(lambda: protocol, sock=sock, ssl=tls, server_hostname=name, **times)


# Listening ----------------------------------------------------------------------------------------


def listen(place: Place) -> socket.socket:
    """Opens a listening socket.

    Raises:
        OSError: it cannot be listened there.
    """
    family, where = place
    if family in _INTERNET:
        both = where[0] == "::" and socket.has_dualstack_ipv6()
        sock = socket.create_server(where, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    else:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.bind(where)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    sock.setblocking(False)
    return sock


def remove(path: str) -> None:
    """Removes a Unix socket, if there is one and it is still there."""
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)


# Options and facts --------------------------------------------------------------------------------


def at_once(sock: socket.socket) -> None:
    """Has TCP send what there is without waiting for more; asyncio does so for its own sockets."""
    if sock.family in _INTERNET:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def widen(sock: Any) -> None:
    """Lets a Unix socket hold as much as TCP would in the end: by itself it stays small."""
    if sock.family not in _INTERNET:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


def duplicate(sock: Any) -> socket.socket:
    """Returns another socket of the same connection, which does not block.

    Raises:
        OSError: the process may open no more files.
    """
    own = os.dup(sock.fileno())
    try:
        copy = socket.socket(sock.family, sock.type, sock.proto, fileno=own)
    except BaseException:
        os.close(own)
        raise
    copy.setblocking(False)
    return copy


def facts(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """Returns what is known of the peer, as `wool.abc.Connection.extra` calls it."""
    sock = transport.get_extra_info("socket")
    if sock.family not in _INTERNET:
        known: dict[str, Any] = {"peer": "unix socket", "same_host": True}
        with contextlib.suppress(OSError):
            known["uid"] = peer_uid(sock)
        return known
    name = transport.get_extra_info("peername")
    if not name:
        return {}  # it has gone already
    host, port = name[:2]
    return {
        "peer": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "same_host": is_loopback(host),
    }


def peer_uid(sock: Any) -> int:
    """Asks the kernel who is at the other end of a Unix socket."""
    if sys.platform == "linux":
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    # LOCAL_PEERCRED of macOS and the BSDs: a version, then the effective user id.
    return int(struct.unpack_from("II", sock.getsockopt(0, 1, 76))[1])


def is_loopback(host: str) -> bool:
    """Whether the number of a peer is one of this machine alone."""
    import ipaddress

    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(number, "ipv4_mapped", None)
    return bool((mapped or number).is_loopback)
