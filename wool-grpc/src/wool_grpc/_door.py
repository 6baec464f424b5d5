"""The door of a listener: strangers make room for others, those first that came first.

gRPC accepts connections in threads of its own and lets each take its time for TLS and HTTP/2, until
there are as many as may be. It drops none before, so whoever opens enough of them would keep all
others out. Hence this looks at the sockets of the process itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
import sys
from collections import Counter
from collections.abc import Generator

from wool_grpc._addresses import Address

Peer = tuple[str, int]

STRANGERS = 256
"""Connections without a stream; the oldest is dropped for one more."""

CALM, SIEGE = 1.0, 0.02
"""Seconds until the next look, usually and when there are many strangers."""


class Door:
    """Watches who comes.

    Args:
        port: where the listener is; 0: at a Unix socket, which only its user can reach.
        most: how many connections it may have at once, known ones included.
    """

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._most = most
        self._known: Counter[Peer] = Counter()
        self._sockets: dict[int, Peer | None] = {}  # by inode; None: it is not one of the listener

    @contextlib.contextmanager
    def knowing(self, address: Address) -> Generator[None]:
        """Whoever has this address has a stream as long as the context is open."""
        if address.path:
            yield
            return
        peer = _peer(address.host, address.port)
        self._known[peer] += 1
        try:
            yield
        finally:
            self._known[peer] -= 1
            if not self._known[peer]:
                del self._known[peer]

    async def watch(self) -> None:
        """Shows strangers out, until cancelled."""
        if not self._port:
            await asyncio.get_running_loop().create_future()
        while True:
            try:
                strangers = self._look()
            except OSError:  # no descriptor is left to look with: perhaps there is next time
                strangers = []
            room = self._room()
            for descriptor, peer in strangers[: max(0, len(strangers) - room)]:
                _hang_up(descriptor, peer)
            await asyncio.sleep(SIEGE if len(strangers) > room // 2 else CALM)

    def _room(self) -> int:
        """Returns how many strangers there may be."""
        return max(1, min(STRANGERS, (self._most - len(self._known)) // 2))

    def _look(self) -> list[tuple[int, Peer]]:
        """Returns sockets of strangers and their peers, those first that have been seen first."""
        here: dict[int, int] = {}
        for descriptor in _descriptors():
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if stat.S_ISSOCK(status.st_mode):
                    here[status.st_ino] = descriptor
        self._sockets = {inode: peer for inode, peer in self._sockets.items() if inode in here}
        for inode, descriptor in here.items():
            if inode not in self._sockets:
                self._sockets[inode] = self._visitor(descriptor)
        found = self._sockets.items()
        return [(here[i], peer) for i, peer in found if peer and peer not in self._known]

    def _visitor(self, descriptor: int) -> Peer | None:
        """Returns whose connection to the listener a socket is, if it is one."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            over_ip = sock.family in (socket.AF_INET, socket.AF_INET6)
            if over_ip and sock.getsockname()[1] == self._port:
                return _peer(*sock.getpeername()[:2])
        return None


def _peer(host: str, port: int) -> Peer:
    number = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(number, "ipv4_mapped", None) or number), port


def _descriptors() -> list[int]:
    """Returns the files that this process has open; none where that cannot be known."""
    return [int(name) for name in os.listdir("/proc/self/fd")] if sys.platform == "linux" else []


def _hang_up(descriptor: int, peer: Peer) -> None:
    """Ends the connection of a peer, of which gRPC learns as if the peer had done so.

    The descriptor may meanwhile be of something else, which a copy of it can not become.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        if _peer(*sock.getpeername()[:2]) == peer:
            sock.shutdown(socket.SHUT_RDWR)
