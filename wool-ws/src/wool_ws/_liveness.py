"""Whether the peer's machine still answers: a matter of TCP, never of the peer's Python.

The kernel answers for a peer that is stopped, or whose Python is busy. `TCP_USER_TIMEOUT` is not
used: it also ends connections to a peer that is there but does not read, so that its window stays
closed. Instead the kernel is asked what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

PROBES = 4
"""Questions without an answer that it takes to give a peer up."""

_RTO_MAX_MS = 44
"""TCP_RTO_MAX_MS of Linux 6.15, which Python does not name yet."""

_INFO = struct.Struct("=2xBB52xI")
"""Of Linux's tcp_info: retransmits, probes, last_ack_recv."""


def watch(transport: asyncio.BaseTransport, idle: float, timeout: float) -> Watch | None:
    """Has a peer given up that has not answered for `idle + timeout` seconds.

    The kernel does that while all that was sent has been acknowledged; otherwise the watch that
    is returned tells. None: there is nothing to watch, since the peer is on this machine.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    interval = max(1, int(timeout / PROBES))
    _set(sock, socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPIDLE", int(idle))
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPALIVE", int(idle))  # its name on macOS
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPINTVL", interval)
    _set(sock, socket.IPPROTO_TCP, "TCP_KEEPCNT", max(1, int(timeout / interval)))
    if sys.platform == "linux":
        # Else a peer whose window is closed would be asked ever more rarely.
        _set(sock, socket.IPPROTO_TCP, _RTO_MAX_MS, max(1000, int(timeout * 1000 / PROBES)))
    return Watch(sock, idle + timeout - timeout / PROBES)


def _set(sock: socket.socket, level: int, option: str | int, value: int) -> None:
    """Sets an option, if this platform has it."""
    number = option if isinstance(option, int) else getattr(socket, option, None)
    if number is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, number, value)


class Watch:
    """Notices that nothing which was sent is acknowledged any more; on Linux only.

    Args:
        sock: a TCP socket.
        limit: seconds of silence that are too long.
    """

    def __init__(self, sock: socket.socket, limit: float) -> None:
        self._sock = sock
        self._limit = limit * 1000
        self._asked = False

    def is_silent(self) -> bool:
        """To be called every now and then: whether the peer is to be given up.

        It is if the kernel waits for an answer, did so the last time as well, and has heard
        nothing for too long. One question may always be on its way.
        """
        if sys.platform != "linux":
            return False
        try:
            known = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            retransmits, probes, silence = _INFO.unpack(known)
        except (OSError, struct.error, ValueError):  # ValueError: uvloop has closed it
            return False
        before, self._asked = self._asked, bool(retransmits or probes)
        return before and self._asked and silence >= self._limit
