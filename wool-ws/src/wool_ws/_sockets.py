"""Sockets: connected, listening, and what they know of the peer."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from wool_ws._addresses import Address, is_loopback

BACKLOG = 1024
PORTS = {False: 80, True: 443}
"""Where to dial if the address has no port: without TLS, and with it."""


HEAD_START = 0.25
"""Seconds that one number of a host has before the next is tried as well (RFC 8305)."""


Place = tuple[int, Any]
"""Family and address of a socket."""


async def resolve(address: Address, port: int) -> list[Place]:
    """Returns the places that an address names: of a host, one for each of its numbers.

    Raises:
        OSError, UnicodeError: there are none.
    """
    if address.socket:
        return [(getattr(socket, "AF_UNIX", 0), address.socket)]
    return await _resolve(address.host, port)


async def dial(places: Sequence[Place]) -> tuple[socket.socket, list[Place]]:
    """Connects to one of several places: to the first that answers.

    Returns also those of the others that have not failed.

    Raises:
        OSError: none is reached. A cancelled `dial` leaves nothing open.
    """
    if len(places) == 1:
        return await _dial(places[0]), []
    return await _dial_first(places)


async def _dial(place: Place) -> socket.socket:
    family, where = place
    return await (_dial_unix(where) if isinstance(where, str) else _dial_tcp(family, where))


async def _dial_first(places: Iterable[Place]) -> tuple[socket.socket, list[Place]]:
    untried, attempts = deque(places), dict[asyncio.Task[socket.socket], Place]()
    failures: list[OSError] = []
    try:
        while untried or attempts:
            if untried:
                place = untried.popleft()
                attempts[asyncio.create_task(_dial(place))] = place
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


async def _resolve(host: str, port: int) -> list[Place]:
    """Returns families and addresses; those of a number without asking anybody."""
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


async def _dial_tcp(family: int, place: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
        at_once(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _dial_unix(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no Unix sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:  # too many are waiting to be accepted, and nothing tells
                await asyncio.sleep(0.01)
    except BaseException:
        sock.close()
        raise


BUFFER = 1 << 20
"""Bytes on their way through a Unix socket."""


async def listen(address: Address) -> socket.socket:
    """Opens a listening socket; without a port, or with 0, at one that is free.

    Raises:
        OSError: it cannot be listened there.
    """
    if address.socket:
        return _listen_unix(address.socket)
    family, place = (await _resolve(address.host, address.port or 0))[0]
    both = address.host == "::" and socket.has_dualstack_ipv6()
    sock = socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    sock.setblocking(False)
    return sock


def _listen_unix(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no Unix sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def at_once(sock: socket.socket) -> None:
    """Has TCP send what there is without waiting for more; asyncio does so for its own sockets."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def widen(transport: asyncio.BaseTransport) -> None:
    """Lets a Unix socket hold as much as TCP would in the end: by itself it stays small."""
    sock = transport.get_extra_info("socket")
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)


def facts(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """Returns what is known of the peer, as `wool.abc.Connection.extra` calls it."""
    sock = transport.get_extra_info("socket")
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        known: dict[str, Any] = {"peer": "unix socket", "same_host": True}
        with contextlib.suppress(OSError, AttributeError):
            known["uid"] = _uid(sock)
        return known
    name = transport.get_extra_info("peername")
    if not name:
        return {}  # it has gone already
    host, port = name[:2]
    return {
        "peer": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "same_host": is_loopback(host),
    }


def _uid(sock: socket.socket) -> int:
    """Asks the kernel who is at the other end of a Unix socket."""
    if sys.platform == "linux":
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    # LOCAL_PEERCRED of macOS and the BSDs: a version, then the effective user id.
    return int(struct.unpack_from("II", sock.getsockopt(0, 1, 76))[1])


def remove(path: str) -> None:
    """Removes a Unix socket, if it is still there."""
    with contextlib.suppress(OSError):
        os.unlink(path)
