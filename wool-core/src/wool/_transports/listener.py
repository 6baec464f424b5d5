"""Accepting connections: strangers first, connections once they have shown to be such."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Awaitable, Callable

from wool import abc

DEADLINE = 10.0
"""Seconds a stranger has for all that comes before there are messages, such as TLS and HTTP."""

STRANGERS = 256
"""How many may be at that at once; those who have been longest make room for others."""

_PAUSE = 0.1
"""Seconds until the next attempt if none can be accepted, for lack of descriptors mostly."""

Admit = Callable[[socket.socket], Awaitable[abc.Connection | None]]
"""Makes a connection of a socket that was accepted. None: that was all, and it is closed. One that
raises, or is cancelled, closes the socket; `OSError` and the listener's own errors tell nobody."""


class SocketListener(abc.Listener):
    """A listening socket.

    Args:
        sock: the socket.
        address: how others reach it.
        admit: makes connections.
        leave: removes what `listen` has created besides.
        mistakes: what `admit` raises if a stranger does wrong.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        admit: Admit,
        leave: Callable[[], None] = lambda: None,
        mistakes: tuple[type[Exception], ...] = (),
    ) -> None:
        self.address = address
        self._sock = sock
        self._admit = admit
        self._leave = leave
        self._mistakes = (OSError, *mistakes)  # TimeoutError and ssl.SSLError are OSErrors, too
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], socket.socket] = {}  # the oldest come first
        self._closed = False

    async def serve(self, handler: abc.Handler) -> None:
        self._watch(handler)
        try:
            await asyncio.shield(self._ended)
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self.aclose()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._ended.set_result(None)
        for task in self._strangers:
            task.cancel()
        self._sock.close()
        self._leave()

    def _watch(self, handler: abc.Handler) -> None:
        """Accepts whoever comes, from now on."""
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept, handler)

    def _accept(self, handler: abc.Handler) -> None:
        """Accepts one; a crowd at the door must not keep the loop from turning."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # whoever it was has gone
        except OSError:
            self._loop.remove_reader(self._sock)
            self._loop.call_later(_PAUSE, self._watch, handler)
            self._drop_oldest()
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._attend(sock, handler))
        self._tasks.add(task)
        self._strangers[task] = sock
        task.add_done_callback(self._forget)
        if len(self._strangers) > STRANGERS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        for task in self._strangers:
            task.cancel()
            del self._strangers[task]
            break

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        sock = self._strangers.pop(task, None)
        if sock is not None:  # cancelled before it began
            sock.close()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, abc.ConnectionLost):
            context = {"message": "serving a connection has failed", "exception": error}
            self._loop.call_exception_handler(context)

    async def _attend(self, sock: socket.socket, handler: abc.Handler) -> None:
        """Does everything for one connection."""
        connection: abc.Connection | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                connection = await self._admit(sock)
        except BaseException as error:
            # Else the buffers of asyncio's TLS, 256 KiB each, wait for the garbage collector.
            _let_go(error)
            if not isinstance(error, self._mistakes):
                raise
            return  # the peer knows what it did
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._strangers.pop(task, None)
        if connection is not None:
            try:
                await handler(connection)
            finally:
                await connection.aclose()


def _let_go(error: BaseException) -> None:
    """Lets go of what the functions had in hand that an error, or what led to it, has ended."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
