"""Whether a place to listen at is free.

gRPC does not tell why it cannot have one, and takes away the Unix socket of somebody who lives.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from wool_grpc._addresses import Address


def claim(place: Address) -> None:
    """Checks that nobody listens at a place, and removes the socket of one who has died.

    Raises:
        OSError: it is taken, or no place to listen at.
    """
    if not place.path:
        _bind(place)
        return
    try:
        mode = os.lstat(place.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode) or _answers(place.path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(place.path)


def is_taken(place: Address) -> bool:
    """Whether somebody listens at a place."""
    if place.path:
        return os.path.exists(place.path)
    try:
        _bind(place)
    except OSError:
        return True
    return False


def _bind(place: Address) -> None:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if os.name == "posix":  # elsewhere the option means something else
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Looked up, for the interface that a link-local address may name.
        flag = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(place.host, place.port, family, socket.SOCK_STREAM, 0, flag)
        sock.bind(found[0][4])


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
        return True
