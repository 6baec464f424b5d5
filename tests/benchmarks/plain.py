"""Transfers over plain TCP: the least that any transfer takes.

A request is two numbers: how many bytes follow it, and how many are to come back.
"""

from __future__ import annotations

import socket
import struct
import threading

_REQUEST = struct.Struct("<QQ")
_PIECE = 1 << 20


def listen(host: str) -> str:
    """Serves on threads of this process; returns the address."""
    sock = socket.create_server((host, 0))
    threading.Thread(target=_accept, args=(sock,), daemon=True).start()
    return "%s:%d" % sock.getsockname()


def _accept(listening: socket.socket) -> None:
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_serve, args=(sock,), daemon=True).start()


def _serve(sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := sock.recv(_REQUEST.size, socket.MSG_WAITALL):
            up, down = _REQUEST.unpack(request)
            _take(sock, up)
            _give(sock, down)


def transfer(sock: socket.socket, up: int, down: int) -> None:
    """Sends `up` bytes, and receives `down` after the other side has received those."""
    sock.sendall(_REQUEST.pack(up, down))
    _give(sock, up)
    _take(sock, down)


def _give(sock: socket.socket, size: int) -> None:
    piece = memoryview(bytes(_PIECE))
    while size:
        size -= sock.send(piece[: min(size, _PIECE)])


def _take(sock: socket.socket, size: int) -> None:
    piece = bytearray(_PIECE)
    while size:
        received = sock.recv_into(piece, min(size, _PIECE))
        if not received:
            raise ConnectionError("the other side has closed the connection")
        size -= received
