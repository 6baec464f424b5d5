"""The transport: dials and listens."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from wool import abc
from wool_grpc import Options, _probe
from wool_grpc._addresses import Address, known, parse, resolve
from wool_grpc._connection import WRITE, GrpcConnection, Stream
from wool_grpc._library import GrpcThread, aio, check_process, grpc, settle
from wool_grpc._listener import METHOD, SERVICE, TAKEN, GrpcListener
from wool_grpc._tls import channel_credentials, expected_name, name_in, server_credentials

Arguments = list[tuple[str, int | str]]


class GrpcTransport(abc.Transport):
    """Connects over gRPC."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._thread = GrpcThread()

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        check_process()
        place = parse(address)
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(place, credentials)
        except TimeoutError:
            raise abc.ConnectFailed(
                f"{address} did not answer within {timeout:g} s", reason="timeout"
            ) from None

    async def _connect(self, place: Address, tls: abc.Tls | None) -> abc.Connection:
        places = await resolve(place)
        name = "" if tls is None else expected_name(tls, place)
        found, certificate = await _probe.find(places, tls, name)
        secure = None if tls is None else channel_credentials(tls, certificate)
        if tls is not None and not tls.verify:
            name = name_in(certificate)
        arguments = channel_arguments(self._options, found, name)
        try:
            stream = await self._dial(found, secure, arguments)
        except _NoCall as failure:
            raise await _reason(failure, found, tls) from None
        facts = known(found)
        if certificate:
            facts["certificate"] = certificate
        return GrpcConnection(stream, facts)

    async def _dial(self, place: Address, secure: Any, arguments: Arguments) -> Stream:
        """Opens a channel and the stream on it.

        Raises:
            ConnectFailed: there are too many open files.
            _NoCall: it did not come to that.
        """
        opened: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        try:
            running = self._thread.start(lambda: _carry(opened, place, secure, arguments))
        except OSError as error:
            what = os.strerror(error.errno or 0)
            raise abc.ConnectFailed(f"{place.text} cannot be dialled: {what}") from error
        try:
            return await opened
        except BaseException:
            running.cancel()
            raise

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        check_process()
        place = parse(address or "grpc://127.0.0.1:0")
        listener = GrpcListener((await resolve(place))[0])
        secure = None if credentials is None else server_credentials(credentials)
        arguments = server_arguments(self._options, place)
        await listener.open(self._thread, place.host, secure, arguments)
        return listener


class _NoCall(Exception):
    """No call got through.

    Attributes:
        code: the status that the peer has answered with.
    """

    def __init__(self, code: Any) -> None:
        self.code = code


async def _carry(
    opened: asyncio.Future[Stream], place: Address, secure: Any, arguments: Arguments
) -> None:
    """Opens a channel with one call, and carries its stream to the end, on gRPC's thread."""
    stream: Stream | None = None
    try:
        if secure is None:
            opening = aio.insecure_channel(place.target, options=arguments)
        else:
            opening = aio.secure_channel(place.target, secure, options=arguments)
        async with opening as channel:
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            if TAKEN[0] not in await call.initial_metadata():  # it is being refused
                raise _NoCall(await call.code())

            async def finish() -> None:
                await call.done_writing()
                await call.code()

            stream = Stream(opened.get_loop(), call.read, call.write, finish)
            settle(opened, stream)
            await stream.carry()
    except Exception as error:
        settle(opened, error.with_traceback(None))
    except asyncio.CancelledError:
        pass  # passed on, its traceback would keep the connection until garbage is collected
    finally:
        if stream is not None:
            stream.closed()


async def _reason(failure: _NoCall, place: Address, tls: abc.Tls | None) -> abc.ConnectFailed:
    """Returns what to raise for a call that was not taken."""
    codes, code = grpc.StatusCode, failure.code
    if code in (codes.UNAVAILABLE, codes.CANCELLED):  # which says nothing
        return await _probe.explain(place, tls)
    if code in (codes.UNIMPLEMENTED, codes.NOT_FOUND, codes.OK):
        return abc.ConnectFailed(f"{place.text} speaks gRPC, but is not a worker of Wool")
    what = code.name.lower().replace("_", " ")
    return abc.ConnectFailed(f"{place.text} refused the call ({what})")


# Arguments of channels and servers ---------------------------------------------------------------
#
# Before authentication a stranger must not make a listener hold much: handshakes have a deadline, a
# connection without a stream is closed, and streams, headers and messages are few and small.

HANDSHAKE = 10_000
"""Milliseconds that TLS and the first frames of HTTP/2 may take."""

IDLE = 10_000
"""Milliseconds a connection may be without a stream."""

STREAMS = 2
"""Streams on one connection: Wool's is one, a probe of the service's health may be another."""

PENDING = 1 << 16
"""Calls that may wait for the event loop; more are cancelled. By default that begins at 1,000."""

METADATA = 4 << 10

OWN_WINDOW = 4 << 20
"""Bytes that whoever we have dialled may send before we have read them."""

NEVER = 86_400.0
"""Seconds of the longest keep-alive that there is."""


def _common(options: Options, place: Address, window: int) -> Arguments:
    # A Unix socket tells by itself that the peer has gone, while one that has been stopped answers
    # nothing and is not gone: no sign of life is asked for there.
    keepalive = NEVER if place.path else options.keepalive
    return [
        # A window that adapts itself begins with 4 MiB, too much for strangers.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", window),
        ("grpc.keepalive_time_ms", round(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout * 1000)),
        ("grpc.http2.ping_timeout_ms", round(options.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", WRITE),
        ("grpc.max_send_message_length", WRITE),
        ("grpc.max_metadata_size", METADATA),
        ("grpc.absolute_max_metadata_size", METADATA),
    ]


def channel_arguments(options: Options, place: Address, name: str) -> Arguments:
    """Returns the arguments of a channel for one connection.

    Args:
        name: the name to ask for, and to verify; empty: the host in the target.
    """
    return [
        *_common(options, place, OWN_WINDOW),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        *([("grpc.ssl_target_name_override", name)] if name else []),
    ]


def server_arguments(options: Options, place: Address) -> Arguments:
    """Returns the arguments of a server at `place`."""
    return [
        *_common(options, place, options.window),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE),
        ("grpc.max_connection_idle_ms", IDLE),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", _connections(options)),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
    ]


def _connections(options: Options) -> int:
    """Returns how many connections a listener may have, which leaves files for all else."""
    if options.max_connections:
        return options.max_connections
    if sys.platform == "win32":
        return PENDING
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PENDING if files == resource.RLIM_INFINITY else max(1, min(files * 3 // 4, PENDING))
