"""Transport `unix`: Unix sockets of one user on one machine.

Wool keeps sockets in directories that only their user can enter; besides, the kernel is asked who
the peer is, on both sides. A message is `<u32 length> bytes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from wool import abc
from wool._backends._framing import PREFIX, Incoming, cut
from wool.plugins import API, TransportPlugin, hookimpl

MAX_MESSAGE = 16 << 20
MAX_PATH = 100
_SOCKET_BUFFER = 1 << 20
_JOIN_BELOW = 64 << 10
_READ_AHEAD = 2 << 20
_BACKLOG = 1024
_ACCEPT_AT_ONCE = 8
_FLUSH = 1.0
"""Seconds the peer has to take what is queued when the connection is closed."""

_LOOKS = 4
"""Parts of these seconds. A process that is stopped for a while loses one, and not all of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """The transport has no settings."""


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport."""
    yield TransportPlugin(
        name="unix",
        api=API,
        options=Options,
        factory=UnixTransport,
        capabilities=frozenset({"local", "uid", "unix"}),
    )


class UnixTransport(abc.Transport):
    """Connects processes of one user on one machine."""

    def __init__(self, options: Options) -> None: ...

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        path = _path(address)
        loop, pipe = asyncio.get_running_loop(), _Pipe(None)
        try:
            async with asyncio.timeout(timeout):
                try:
                    sock = await _dial(path)
                    await loop.create_unix_connection(lambda: pipe, sock=sock)
                except BaseException:
                    pipe.release()  # uvloop tells nobody that it has closed what it had made
                    raise
        except TimeoutError:
            raise abc.ConnectFailed(
                f"{address} did not accept a connection within {timeout:g} s", reason="timeout"
            ) from None
        except OSError as error:
            refused = error.errno in (errno.ECONNREFUSED, errno.ENOENT)
            reason = "refused" if refused else "unknown"
            raise abc.ConnectFailed(f"{address}: {error.strerror}", reason=reason) from error
        if not pipe.is_same_user():
            await pipe.aclose()
            raise abc.ConnectFailed(f"{address} belongs to another user")
        return pipe

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        own = None if address else tempfile.mkdtemp(prefix="wool-")
        path = _path(address) if address else os.path.join(str(own), "socket")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if own is not None:
                os.rmdir(own)
            reason = error.strerror or error
            raise abc.ConnectFailed(f"cannot listen at {path}: {reason}") from error
        return _UnixListener(sock, path, own)


class _UnixListener(abc.Listener):
    def __init__(self, sock: socket.socket, path: str, directory: str | None) -> None:
        self.address = f"unix://{path}"
        self._sock = sock
        self._path = path
        self._directory = directory
        self._server: asyncio.Server | None = None
        self._closed = False

    async def serve(self, handler: abc.Handler) -> None:
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def handle(pipe: _Pipe) -> None:
            try:
                if pipe.is_same_user():
                    await handler(pipe)
            finally:
                await pipe.aclose()

        def connected(pipe: _Pipe) -> None:
            if self._closed:  # it was accepted in the very last moment
                pipe.abort()
                return
            task = loop.create_task(handle(pipe))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        try:
            # asyncio tries to accept so many in one turn, and complains of each if there are no
            # descriptors left; who waits to be accepted is another matter.
            self._server = await loop.create_unix_server(
                lambda: _Pipe(connected), sock=self._sock, backlog=_ACCEPT_AT_ONCE
            )
            with contextlib.suppress(OSError):  # it may have been closed meanwhile
                self._sock.listen(_BACKLOG)
            await loop.create_future()
        finally:
            await self.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if self._server is not None:
            self._server.close()
        self._sock.close()
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)


class _Pipe(asyncio.BufferedProtocol, abc.Connection):
    """Messages over a socket."""

    max_message_size = MAX_MESSAGE

    def __init__(self, connected: Any) -> None:
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._inbox = abc.Inbox(self._loop)
        self._delegation: abc.Delegation | None = None
        self._reading = True
        self._descriptor = -1
        self._writing = threading.Lock()  # of _descriptor
        self._rest = b""
        self._incoming = Incoming()
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._lost = False

    # abc.Connection

    async def send(self, messages: Sequence[abc.Segments]) -> None:
        if self._lost:
            raise abc.ConnectionLost("the connection is closed")
        small = list[abc.Buffer]()
        sizes = [sum(map(len, segments)) for segments in messages]
        if max(sizes, default=0) > MAX_MESSAGE:
            raise abc.MessageTooLarge(f"{max(sizes)} bytes in one message; at most {MAX_MESSAGE}")
        self._write_rest()
        for size, segments in zip(sizes, messages, strict=True):
            small.append(size.to_bytes(PREFIX, "little"))
            for segment in segments:
                if len(segment) < _JOIN_BELOW:
                    small.append(segment)
                else:
                    self._write(b"".join(small))
                    small.clear()
                    self._write(segment)
        if small:
            self._write(b"".join(small))
        if self._writable is not None:
            await asyncio.shield(self._writable)  # others may be waiting for it
            if self._lost:
                raise abc.ConnectionLost("the connection is closed")

    def can_send_now(self) -> bool:
        alive = self._descriptor >= 0 and not self._transport.is_closing()
        return alive and not self._rest and not self._transport.get_write_buffer_size()

    def send_now(self, messages: Sequence[abc.Segments]) -> None:
        data = b"".join(
            part
            for segments in messages
            for part in (sum(map(len, segments)).to_bytes(PREFIX, "little"), *segments)
        )
        with self._writing:
            if self._descriptor < 0:
                return  # the connection is gone, as `receive` finds out
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                written = 0
            except OSError:
                return  # likewise
        if written < len(data):
            self._rest = data[written:]
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._write_rest)

    def _write_rest(self) -> None:
        """Sends what `send_now` could not."""
        if self._rest:
            self._write(self._rest)
            self._rest = b""  # not before: another thread would send in between

    def _write(self, data: abc.Buffer) -> None:
        """Has the loop write, unless it has found the peer gone: it complains of more."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def receive(self) -> Sequence[bytes | memoryview]:
        messages = await self._inbox.receive()
        self._read_on()
        return messages

    async def pump(self, take: abc.Take) -> NoReturn:
        self._read_on()
        try:
            await self._inbox.pump(take)
        finally:
            self._end_delegation()

    def delegate(self, loop: asyncio.AbstractEventLoop, take: abc.TakeSome) -> bool:
        if not self._reading or not self._incoming.is_empty or self._transport.is_closing():
            return False
        if self._delegation is not None and self._delegation.open:
            return False
        self._stop_reading()
        try:
            self._delegation = abc.Delegation(
                self._descriptor,
                self._loop,
                loop,
                take,
                cut=self._cut,
                resume=self._resume,
                abort=self.abort,
            )
        except (OSError, RuntimeError):
            self._read_on()
        return not self._reading

    @property
    def delegated(self) -> bool:
        return self._delegation is not None and self._delegation.active

    def _cut(self, data: bytes) -> abc.Cut:
        return abc.Cut(*cut(data, self.receive_limit))

    def _resume(self, left: abc.Cut) -> None:
        """Reads again, behind what has been read elsewhere."""
        self._inbox.put(left.messages)
        if count := len(left.rest):  # no more than there is room for
            self._incoming.room()[:count] = left.rest
            self.buffer_updated(count)
        self._read_on()

    def _end_delegation(self) -> None:
        if self._delegation is not None:
            self._delegation.end()

    def _stop_reading(self) -> None:
        self._reading = False
        self._transport.pause_reading()

    def _read_on(self) -> None:
        """Reads again, if too much had been waiting."""
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    async def aclose(self) -> None:
        self._end_delegation()
        self._transport.close()
        if not self._lost:
            self._give_up(_LOOKS)
            try:
                await asyncio.shield(self._closed)
            finally:
                self._giving_up.cancel()

    def _give_up(self, looks: int) -> None:
        """Aborts soon: what is queued goes out, unless the peer does not take it."""
        if looks:
            soon = _FLUSH / _LOOKS
            self._giving_up = self._loop.call_later(soon, self._give_up, looks - 1)
        elif not self._lost:
            self._transport.abort()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    def extra(self, attribute: str, default: Any = None) -> Any:
        if attribute == "uid":
            try:
                return _peer_uid(self._transport.get_extra_info("socket"))
            except (OSError, ValueError):  # the connection has ended
                return default
        return {"peer": "unix socket", "same_host": True}.get(attribute, default)

    def is_same_user(self) -> bool:
        """Whether the kernel says that the peer is of this user."""
        return self._lost or self.extra("uid") == os.geteuid()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_SOCKET_BUFFER)
        sock = transport.get_extra_info("socket")
        # A descriptor of our own: the loop may close its one, and the number be given to another
        # connection, while another thread is in `send_now`.
        with contextlib.suppress(OSError):  # there is none left: it does without `send_now`
            self._descriptor = os.dup(sock.fileno())
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        if self._connected is not None:
            self._connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._incoming.room()

    def buffer_updated(self, nbytes: int) -> None:
        messages: list[bytes | memoryview] = []
        try:
            messages.extend(self._incoming.take(nbytes, self.receive_limit))
        except ValueError:
            self._transport.abort()  # what came before is still delivered
        self._inbox.put(messages)
        if self._inbox.waiting > _READ_AHEAD and self._reading:
            self._stop_reading()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def release(self) -> None:
        """Closes the descriptor of our own."""
        with self._writing:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()  # its loop was closed, and told nobody

    def _read_rest(self) -> None:
        """Reads what the peer sent before it closed: the loop reads no more once a write fails."""
        left = _READ_AHEAD  # as much as a socket holds: a peer may go on sending for ever
        with contextlib.suppress(OSError):
            while left > 0 and self._descriptor >= 0:
                count = os.readv(self._descriptor, [self._incoming.room()])
                if not count:
                    return
                left -= count
                self.buffer_updated(count)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_delegation()
        if exc is not None:
            self._read_rest()
        self.release()
        if self._delegation is not None:
            self._delegation.shut()
            self._delegation = None
        self._lost = True
        self.resume_writing()
        self._inbox.end(str(exc or "") or "the peer closed the connection")
        if not self._closed.done():
            self._closed.set_result(None)


async def _dial(path: str) -> socket.socket:
    """Connects a socket; no loop knows how to wait where others wait to be accepted."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:  # there are too many, and nothing tells when there are fewer
                await asyncio.sleep(0.01)
    except BaseException:
        sock.close()
        raise


def _path(address: str) -> str:
    path = address.removeprefix("unix://")
    if len(os.fsencode(path)) > MAX_PATH:
        raise abc.ConnectFailed(f"{path!r} is longer than the {MAX_PATH} bytes a socket may have")
    return path


def _peer_uid(sock: Any) -> int:
    """Asks the kernel who is at the other end."""
    if sys.platform == "linux":
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack("iII", credentials)[1]
    # LOCAL_PEERCRED of macOS and the BSDs: a version, then the effective user id.
    return struct.unpack_from("II", sock.getsockopt(0, 1, 76))[1]
