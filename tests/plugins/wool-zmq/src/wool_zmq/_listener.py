"""The side that listens: one ROUTER socket for all connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial

import zmq

from wool.abc import Connection, ConnectionLost, Handler, Listener
from wool_zmq._connection import BYE, HELLO, PING, ZmqConnection, uid_of
from wool_zmq._sockets import Monitored


class ZmqListener(Listener):
    """A Unix socket, which is bound here: ZeroMQ would take one away from whoever has it."""

    def __init__(self, path: str, folder: str | None) -> None:
        self.address = f"zmq+unix://{path}"
        self._path: str | None = path
        self._folder = folder  # to be removed, too
        self._peers: dict[bytes, tuple[int, ZmqConnection]] = {}  # and the descriptor
        self._early: set[int] = set()  # descriptors that were closed before we heard of the peer
        self._accepted: asyncio.Queue[ZmqConnection | None] = asyncio.Queue()
        options = {
            zmq.ROUTER_MANDATORY: 1,  # so that it says who is gone
            zmq.RCVHWM: 16,  # it is emptied all the time
            zmq.USE_FD: _bind(path).detach(),
        }
        self._router = Monitored(
            zmq.ROUTER, options, zmq.EVENT_DISCONNECTED, self._on_message, self._on_gone
        )
        self._router.socket.bind(f"ipc://{path}")

    def _on_message(self, message: list[zmq.Frame]) -> None:
        ident, kind, *parts = message
        if ident.bytes in self._peers:
            self._peers[ident.bytes][1].take(kind.bytes, parts)
        elif kind.bytes == HELLO and self._path is not None:
            self._accept(ident.bytes, kind)
        elif kind.bytes != BYE:
            self._post(ident.bytes, BYE)

    def _accept(self, ident: bytes, hello: zmq.Frame) -> None:
        peer = ZmqConnection(
            lambda parts: self._router.post([ident, *parts]), partial(self._forget, ident)
        )
        peer.uid, descriptor = uid_of(hello), hello.get(zmq.SRCFD)
        self._peers[ident] = descriptor, peer
        self._accepted.put_nowait(peer)
        self._post(ident, HELLO)
        if descriptor in self._early:
            self._early.discard(descriptor)
            self._see_out(ident, peer)

    def _post(self, ident: bytes, word: bytes) -> bool:
        with contextlib.suppress(zmq.ZMQError):
            self._router.post([ident, word])
            return True
        return False

    def _forget(self, ident: bytes) -> None:
        self._peers.pop(ident, None)
        self._close_if_done()

    def _on_gone(self, event: int, gone: int) -> None:
        leaving = [(k, peer) for k, (number, peer) in self._peers.items() if number == gone]
        for ident, peer in leaving:
            self._see_out(ident, peer)
        if not leaving:
            self._early.add(gone)

    def _see_out(self, ident: bytes, peer: ZmqConnection, wait: float = 0.01) -> None:
        # It is told a little too early, and may be another one with the same number already.
        if not self._post(ident, PING):
            peer.over("the peer is gone")
        elif wait < 5:
            asyncio.get_running_loop().call_later(wait, self._see_out, ident, peer, wait * 4)

    async def serve(self, handler: Handler) -> None:
        """Runs handlers, until cancelled, or closed and the last one has ended."""
        handlers: set[asyncio.Task[None]] = set()
        try:
            while (connection := await self._accepted.get()) is not None:
                task = asyncio.create_task(_handle(handler, connection))
                handlers.add(task)
                task.add_done_callback(handlers.discard)
            while handlers:
                await asyncio.wait(handlers)
        finally:
            while handlers:
                for task in handlers:
                    task.cancel()
                await asyncio.wait(handlers)

    async def aclose(self) -> None:
        """Lets nobody in any more; the socket is closed with the last connection."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
                if self._folder is not None:
                    os.rmdir(self._folder)
            self._path = None
            self._accepted.put_nowait(None)
            while (connection := self._accepted.get_nowait()) is not None:
                connection.over("nobody serves here any more")
            self._accepted.put_nowait(None)
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._path is None and not self._peers:
            self._router.close()


async def _handle(handler: Handler, connection: Connection) -> None:
    try:
        await handler(connection)
    except ConnectionLost:
        pass  # it has ended
    except Exception:
        logging.getLogger("wool_zmq").exception("a handler has failed")
    finally:
        await connection.aclose()


def _bind(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock
