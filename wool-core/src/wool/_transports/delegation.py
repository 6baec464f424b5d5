"""Reading that is delegated to the thread that waits for what arrives.

A worker with nothing to do would be woken twice for each call: its I/O thread by the socket, and
its main thread by that. With reading delegated, the socket wakes the main thread itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable

LOOK = 0.004
"""Seconds between looks whether something waits to be read."""

PATIENCE = 0.001
"""Seconds that it may go on waiting when a look has found it."""

QUIET = 0.02
"""Seconds without anything to read after which the connection reads by itself again.

So looking costs at most a few looks for each read, however many connections have it delegated.
"""


class Delegation:
    """Has a socket read on the thread of another loop, as long as that suits.

    It ends by itself when `read` says so, if the other thread does not come to read within some
    milliseconds, and if nothing arrives for a while.

    Args:
        sock: does not block; it is closed on the other thread.
        here: the loop of the connection.
        there: the one whose thread is to read.
        read: reads there what has arrived; returns whether to go on.
        resume: called once on the connection's loop, when it has ended.
        abort: called there instead if what was read is lost, as a handler of a signal has raised on
            the other thread.

    Attributes:
        active: whether it lasts; for the connection's loop.

    Raises:
        RuntimeError: the other loop is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        here: asyncio.AbstractEventLoop,
        there: asyncio.AbstractEventLoop,
        *,
        read: Callable[[socket.socket], bool],
        resume: Callable[[], None],
        abort: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._here = here
        self._there = there
        self._resume = resume
        self._abort = abort
        self.active: bool = True
        self._process = os.getpid()
        self._lock = threading.Lock()  # of what follows
        self._read: Callable[[socket.socket], bool] | None = read  # until it ends
        self._reading = False  # and, once it has ended: was interrupted in that
        self._looks = 0  # since something was read
        self._waits = False  # as the last look has found
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        there.call_soon_threadsafe(there.add_reader, sock, self._on_readable)
        here.call_later(LOOK, self._look)

    # On the connection's loop, where no signals are handled ---------------------------------------

    @property
    def open(self) -> bool:
        """Whether the other thread has not yet stopped to wait for the socket."""
        return self._socket.fileno() >= 0

    def end(self) -> None:
        """Ends it: `read` is not running any more, and not called again. Idempotent."""
        if not self.active:
            return
        self.active = False
        with self._lock:
            self._read = None
        try:
            self._there.call_soon_threadsafe(self._stop)
        except RuntimeError:  # it is closed
            self._socket.close()
        if self._reading:
            self._abort()
        else:
            self._resume()

    def shut(self) -> None:
        """Lets the peer see that the connection is closed.

        It would not before the other thread comes round to closing its socket.
        """
        with self._lock, contextlib.suppress(OSError):  # it has, or the peer was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def _look(self) -> None:
        """Ends it if the other thread has, or does something else, or has nothing to read."""
        if not self.active:
            return
        if self._lock.acquire(blocking=False):  # else it is reading
            try:
                ended, waited = self._read is None, self._waits
                self._waits = not ended and bool(self._poll.poll(0))
                self._looks += 1
            finally:
                self._lock.release()
            if ended or (self._waits and waited) or self._looks * LOOK > QUIET:
                self.end()
                return
        self._here.call_later(PATIENCE if self._waits else LOOK, self._look)

    # On the other loop, where a handler of a signal may raise anywhere ----------------------------

    def _on_readable(self) -> None:
        if os.getpid() != self._process:
            return  # one that a routine has forked waits for our sockets
        try:
            with self._lock:
                read = self._read
                if read is None:
                    return  # it has ended
                self._read, self._reading = None, True  # and so it is if something raises
                self._looks, self._waits = 0, False
                go_on = read(self._socket)
                self._reading, self._read = False, read if go_on else None
        finally:
            if self._read is None:
                self._stop()
                with contextlib.suppress(RuntimeError):  # it is closed
                    self._here.call_soon_threadsafe(self.end)  # or a look finds out

    def _stop(self) -> None:
        with self._lock:
            if self.open:
                self._there.remove_reader(self._socket)
                self._socket.close()
