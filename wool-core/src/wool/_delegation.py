"""Reading that is delegated to the thread that waits for what arrives.

A worker with nothing to do would be woken twice for each call: its I/O thread by the socket, and
its main thread by that. With reading delegated, the socket wakes the main thread itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    import socket

TakeSome = Callable[[Sequence[bytes | memoryview]], int]
"""Is given messages that have arrived, at least one; returns how many of them it has taken."""

AT_ONCE = 16 << 10
"""Bytes that are read at once."""

LOOK = 0.004
"""Seconds between looks whether something waits to be read."""

PATIENCE = 0.001
"""Seconds that it may go on waiting when a look has found it."""

QUIET = 1.0
"""Seconds without anything to read after which the connection reads by itself again."""

_SHUT_RDWR = 2  # of `socket`


class Cut(NamedTuple):
    """What has been read: messages that are complete, and the bytes that follow them.

    Those are the beginning of another message, or something else.
    """

    messages: Sequence[bytes | memoryview] = ()
    rest: bytes = b""


class Delegation:
    """Reads from a connection's socket on the thread of another loop, as long as that suits.

    A connection that makes one keeps what `Connection.delegate` promises: it does so when it has
    stopped to read, nothing incomplete has arrived and no other is `open`, reads again from when
    `resume` is called, ends the delegation before `pump` ends and before it closes, and shuts it
    once it is closed.

    It ends by itself if the other thread does not come to read within some milliseconds, if nothing
    arrives for a second, and after what is not taken or no message.

    Args:
        descriptor: of the connection's socket.
        here: the loop of the connection.
        there: the one whose thread is to read.
        take: what is called there.
        cut: makes messages of what has been read; called on that thread.
        resume: called once on the connection's loop, when it has ended: with what was read and not
            taken.
        abort: called there instead if what was read is lost, as a handler of a signal has raised on
            the other thread.

    Attributes:
        active: whether it lasts; for the connection's loop.

    Raises:
        OSError: the process may open no more files.
        RuntimeError: the other loop is closed.
    """

    def __init__(
        self,
        descriptor: int,
        here: asyncio.AbstractEventLoop,
        there: asyncio.AbstractEventLoop,
        take: TakeSome,
        *,
        cut: Callable[[bytes], Cut],
        resume: Callable[[Cut], None],
        abort: Callable[[], None],
    ) -> None:
        self._here = here
        self._there = there
        self._cut = cut
        self._resume = resume
        self._abort = abort
        self.active: bool = True
        self._process = os.getpid()
        self._lock = threading.Lock()  # of what follows
        self._take: TakeSome | None = take  # until it ends
        self._left: Cut | None = None  # by the other thread, when it has ended it
        self._looks = 0  # since something was read
        self._waits = False  # as the last look has found
        self._poll = select.poll()
        # One of our own: who closes a descriptor that another thread waits for confuses its loop.
        self._socket = _duplicate(descriptor)
        try:
            self._poll.register(self._socket, select.POLLIN)
            there.call_soon_threadsafe(there.add_reader, self._socket, self._on_readable)
        except BaseException:
            self._socket.close()
            raise
        here.call_later(LOOK, self._look)

    # On the connection's loop, where no signals are handled ---------------------------------------

    @property
    def open(self) -> bool:
        """Whether the other thread has not yet stopped to wait for the socket."""
        return self._socket.fileno() >= 0

    def end(self) -> None:
        """Ends it: `take` is not running any more, and not called again. Idempotent."""
        if not self.active:
            return
        self.active = False
        with self._lock:
            reading, self._take = self._take is not None, None
        try:
            self._there.call_soon_threadsafe(self._stop)
        except RuntimeError:  # it is closed
            self._socket.close()
        if reading:
            self._resume(Cut())
        elif self._left is not None:
            self._resume(self._left)
        else:
            self._abort()

    def shut(self) -> None:
        """Lets the peer see that the connection is closed.

        It would not before the other thread comes round to closing its descriptor.
        """
        with self._lock, contextlib.suppress(OSError):  # it has, or the peer was first
            self._socket.shutdown(_SHUT_RDWR)

    def _look(self) -> None:
        """Ends it if the other thread has, or does something else, or has nothing to read."""
        if not self.active:
            return
        if self._lock.acquire(blocking=False):  # else it is reading
            try:
                ended, waited = self._take is None, self._waits
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
            self._read()
        finally:
            if self._take is None:
                self._stop()
                with contextlib.suppress(RuntimeError):  # it is closed
                    self._here.call_soon_threadsafe(self.end)  # or a look finds out

    def _stop(self) -> None:
        with self._lock:
            if self.open:
                self._there.remove_reader(self._socket)
                self._socket.close()

    def _read(self) -> None:
        """Reads, and passes on what that was."""
        with self._lock:
            take = self._take
            if take is None:
                return  # it has ended
            self._take = None  # and so it has if something raises
            self._looks, self._waits = 0, False
            try:
                data = self._socket.recv(AT_ONCE)
            except BlockingIOError:
                self._take = take
                return
            except OSError as error:
                if error.errno is None:  # it is none of the system's
                    raise
                data = b""  # as the connection finds out when it reads again
            self._left = self._pass_on(data, take)
            if self._left is None:
                self._take = take

    def _pass_on(self, data: bytes, take: TakeSome) -> Cut | None:
        """Returns what was not taken, if that is the end of it."""
        if not data:
            return Cut()
        messages, rest = self._cut(data)
        taken = take(messages) if messages else 0
        if taken == len(messages) and not rest:
            return None
        return Cut(messages[taken:], rest)


def _duplicate(descriptor: int) -> socket.socket:
    import socket  # those who only say what a plug-in has do without

    own = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=own)
    except BaseException:
        os.close(own)
        raise
    sock.setblocking(False)
    return sock
