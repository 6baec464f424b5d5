"""Memory shared with a peer on the same machine, for payloads larger than a chunk.

The sender copies a payload into a *segment*: memory of the kernel without a name (`memfd_create`)
that cannot shrink. The receiver maps it privately, so what it gets is its own, and writable. When
its last view has gone, the sender uses the segment again: fresh memory is slow to write. Whatever
ends a process, the kernel frees what nobody maps any more.

Descriptors do not pass through the connection itself, which may be of any transport. Each side has
a datagram socket for them that is connected to the other's alone, from when the first large payload
has been sent. Where anything of this cannot be had, payloads travel by chunks.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import mmap
import os
import secrets
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from io import FileIO

from wool import abc
from wool._forks import FORKS
from wool._protocol import frames as f
from wool._protocol.connection import Machine
from wool._protocol.transfer import allocate
from wool._transports.stream import StreamConnection
from wool.exceptions import ProtocolError

MOST_BYTES = 256 << 20
"""Bytes that one side of a connection has in segments, at most: those in use and those at hand."""

MOST_SEGMENTS = 64

KEPT = 5.0
"""Seconds a segment is kept at hand for the next payload; it may be twice that."""

_NUMBER = 8

Send = Callable[[f.Frame], object]


def between(
    connection: abc.Connection, lock: threading.Lock, machine: Machine, send: Send
) -> Sharing | None:
    """Has a connection's machine share memory with its peer, if that is possible.

    Args:
        lock: is held whenever the machine is used.
        send: sends a frame on the loop of the connection while the lock is not held.
    """
    if sys.platform != "linux" or not isinstance(connection, StreamConnection):
        return None
    machine.shared = sharing = Sharing(lock, machine.send, send)
    return sharing


def _here() -> bytes:
    """Names this machine: the running kernel, and the network namespace.

    Raises:
        OSError: the kernel does not tell.
    """
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return b"%b %d" % (file.read().strip(), os.stat("/proc/self/ns/net").st_ino)


class Sharing:
    """Both sides' segments, as one side of a connection sees them."""

    def __init__(self, lock: threading.Lock, tell: Send, send: Send) -> None:
        self._lock = lock
        self._tell = tell
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._mine = self._theirs = b""  # the tokens that segments come with, and are sent with
        self._unable = False
        self._segments: dict[int, _Segment] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None

    # Sending: with the lock held ------------------------------------------------------------------

    def room(self, size: int) -> _Room | None:
        """Returns room for a payload, as `Shared` promises."""
        if not self._theirs:
            self._offer()  # the peer answers, and then there will be some
            return None
        unit = 1 << max(18, size.bit_length() - 4)  # one of a few sizes, so that others fit it
        size = -(-size // unit) * unit
        segment = next((s for s in self._segments.values() if s.free and s.size == size), None)
        if segment is None:
            try:
                segment = self._add(size)
            except OSError:
                return None
        if segment is None:
            return None
        segment.free = False
        return _Room(self, segment)

    def _add(self, size: int) -> _Segment | None:
        """Makes a segment; those that are free make room for it."""
        left = MOST_BYTES - size - sum(s.size for s in self._segments.values())
        if size > MOST_BYTES:
            return None
        for segment in [s for s in self._segments.values() if s.free]:
            if left >= 0 and len(self._segments) < MOST_SEGMENTS:
                break
            left += segment.size
            self._drop(segment)
        if left < 0 or len(self._segments) >= MOST_SEGMENTS:
            return None
        segment = _Segment(self._last + 1, size)
        self._last += 1
        self._segments[segment.number] = segment
        return segment

    def _drop(self, segment: _Segment) -> None:
        if self._segments.pop(segment.number, None) is not None:
            segment.close()

    def hand_over(self, segment: _Segment) -> None:
        """Sends a segment to the peer.

        Raises:
            OSError: too many are under way, or the connection has ended.
        """
        if self._socket is None:
            raise OSError("the connection has ended")
        data = self._theirs + segment.number.to_bytes(_NUMBER, "little")
        socket.send_fds(self._socket, [data], [segment.file.fileno()])

    # Receiving: with the lock held ----------------------------------------------------------------

    def map(self, segment: int, size: int) -> memoryview:
        """Returns what the peer has handed over, as `Shared` promises."""
        import resource

        if size > MOST_BYTES:
            raise ProtocolError(f"the peer shares a payload of {size} bytes; {MOST_BYTES} at most")
        descriptor = self._receive(segment)
        try:
            _check(descriptor, size)
            if descriptor < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
                with contextlib.suppress(OSError):
                    mapping = mmap.mmap(
                        descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
                    )
                    # It has gone when nothing refers to any part of it.
                    gone = weakref.finalize(
                        mapping, self._unmapped, segment, os.getpid(), FORKS.count
                    )
                    gone.atexit = False
                    return memoryview(mapping)
            # A mapping keeps a descriptor, of which there are few left.
            memory = memoryview(allocate(size))
            done = 0
            while done < size:
                done += os.preadv(descriptor, [memory[done:]], done)
            self._say_returned(segment)
            return memory
        finally:
            os.close(descriptor)

    def decline(self, segment: int) -> None:
        """Returns a segment, as `Shared` promises."""
        os.close(self._receive(segment))
        self._say_returned(segment)

    def _receive(self, segment: int) -> int:
        """Returns the descriptor of a segment, which has been sent before it was spoken of."""
        wanted = self._mine + segment.to_bytes(_NUMBER, "little")
        while self._socket is not None:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    len(wanted) + 1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                break
            descriptors = array.array("i")
            for level, kind, item in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(item[: len(item) - len(item) % descriptors.itemsize])
            if secrets.compare_digest(data, wanted) and len(descriptors) == 1:
                return descriptors[0]
            for descriptor in descriptors:  # a stranger's, from before the socket was connected
                os.close(descriptor)
            if data == wanted and flags & socket.MSG_CTRUNC:
                self._say_returned(segment)
                raise MemoryError("this process may open no more files (ulimit -n)")
        raise ProtocolError("the peer spoke of a segment of memory that it has not sent")

    # Talk of both sides about it ------------------------------------------------------------------

    def take(self, frame: f.Share | f.Reuse) -> None:
        """Takes what the peer says, as `Shared` promises."""
        if isinstance(frame, f.Reuse):
            segment = self._segments.get(frame.segment)
            if segment is not None and segment.lent:
                segment.lent = False
                self.free(segment) if frame.clean else self._drop(segment)
            return
        if not frame.address.startswith(b"\0"):  # a file could be anybody's
            raise ProtocolError("the peer takes segments of memory at a place that is a file")
        self._offer()
        if self._socket is None or self._theirs:
            return
        try:
            if frame.machine == _here():
                self._socket.connect(frame.address)
                self._theirs = frame.token
        except OSError:
            return

    def _offer(self) -> None:
        """Tells the peer where this side takes segments."""
        if self._socket is not None or self._unable:
            return
        self._unable = True  # unless it can
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:
            return
        try:
            sock.setblocking(False)
            sock.bind(b"\0wool-" + secrets.token_hex(16).encode())
            machine = _here()
        except OSError:
            sock.close()
            return
        self._socket, self._mine = sock, secrets.token_bytes(16)
        self._tell(f.Share(machine, sock.getsockname(), self._mine))

    def _unmapped(self, segment: int, process: int, forks: int) -> None:
        """A segment is no longer looked at here; it was mapped by a process, after some forks."""
        if process == os.getpid():  # else it is the parent who gives it back
            self._say_returned(segment, clean=forks == FORKS.count)

    def _say_returned(self, segment: int, *, clean: bool = True) -> None:
        """Gives a segment back to the peer; called on any thread, whatever that is doing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._send, f.Reuse(segment, clean))

    # The end --------------------------------------------------------------------------------------

    def free(self, segment: _Segment) -> None:
        """Keeps a segment for the next payload, for a while."""
        segment.free, segment.old = True, False
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # as above
                self._loop.call_soon_threadsafe(self._wait)

    def _wait(self) -> None:
        if self._timer is None and self._socket is not None:
            self._timer = self._loop.call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        """Drops what has not been used for a while."""
        self._timer = None
        with self._lock:
            free = [segment for segment in self._segments.values() if segment.free]
            for segment in free:
                if segment.old:
                    self._drop(segment)
                segment.old = True
        if free:
            self._wait()

    def close(self) -> None:
        """Lets go of all segments of this side; the peer keeps what it has."""
        with self._lock:
            sock, self._socket = self._socket, None
            self._unable, self._theirs = True, b""
            for segment in list(self._segments.values()):
                self._drop(segment)
        if sock is not None:
            sock.close()
        if self._timer is not None:
            self._timer.cancel()


class _Segment:
    """Memory of this side.

    Attributes:
        free: whether it is at hand for a payload.
        lent: whether the peer has it.
        old: whether it was free already when that was last looked at.
    """

    def __init__(self, number: int, size: int) -> None:
        import fcntl

        self.number = number
        self.size = size
        self.free: bool = False
        self.lent: bool = False
        self.old: bool = False
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.file = FileIO(os.memfd_create("wool", flags), "r+")
        try:
            self.file.truncate(size)
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.memory = memoryview(mmap.mmap(self.file.fileno(), size))
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        self.file.close()
        self.memory = memoryview(b"")  # a room may still be written to


class _Room:
    """A segment while a payload is copied into it; free again if it does not get to the peer."""

    def __init__(self, sharing: Sharing, segment: _Segment) -> None:
        self._sharing = sharing
        self._segment = segment
        self._memory = segment.memory

    def write(self, at: int, data: memoryview) -> None:
        self._memory[at : at + len(data)] = data

    def hand_over(self) -> int:
        self._sharing.hand_over(self._segment)
        self._segment.lent = True
        return self._segment.number

    def __del__(self) -> None:
        if not self._segment.lent:
            self._sharing.free(self._segment)


def _check(descriptor: int, size: int) -> None:
    """Makes sure that reading a segment can never fail, whatever the peer does with it."""
    import fcntl

    try:
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:  # it is no memory at all
        sealed = 0
    if not sealed or os.fstat(descriptor).st_size < size:
        raise ProtocolError("the peer shares memory that is too small, or could become so")
