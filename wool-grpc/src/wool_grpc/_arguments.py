"""Arguments of channels and servers.

Before authentication a stranger must not make a listener hold much: handshakes have a deadline, a
connection without a stream is closed, and streams, headers and messages are few and small.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from wool_grpc import Options
from wool_grpc._addresses import Address
from wool_grpc._framing import WRITE

Arguments = list[tuple[str, int | str]]

HANDSHAKE, HANDSHAKE_HERE = 10_000, 2_000
"""Milliseconds that TLS and the first frames of HTTP/2 may take, and the latter at a Unix socket.

There it is the same user who comes, and nobody drops the oldest as a `Door` does."""

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


def suited(options: Options, place: Address) -> Options:
    """Returns the options for connections to or at `place`.

    A Unix socket tells by itself that the peer has gone, while one that has been stopped answers
    nothing and is not gone: no sign of life is asked for there.
    """
    return replace(options, keepalive=NEVER) if place.path else options


def _common(options: Options, window: int) -> Arguments:
    return [
        # A window that adapts itself begins with 4 MiB, too much for strangers.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", window),
        ("grpc.keepalive_time_ms", round(options.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout * 1000)),
        ("grpc.http2.ping_timeout_ms", round(options.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", WRITE),
        ("grpc.max_send_message_length", WRITE),
        ("grpc.max_metadata_size", METADATA),
        ("grpc.absolute_max_metadata_size", METADATA),
    ]


def channel_arguments(options: Options, name: str | None = None) -> Arguments:
    """Returns the arguments of a channel for one connection.

    Args:
        name: the name to ask for, and to verify; None: the host in the target.
    """
    arguments: Arguments = [
        *_common(options, OWN_WINDOW),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]
    if name is not None:
        arguments.append(("grpc.ssl_target_name_override", name))
    return arguments


def server_arguments(options: Options, place: Address) -> Arguments:
    """Returns the arguments of a server at `place`."""
    return [
        *_common(options, options.window),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_HERE if place.path else HANDSHAKE),
        ("grpc.max_connection_idle_ms", IDLE),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", connections(options)),
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
    ]


def connections(options: Options) -> int:
    """Returns how many connections a listener may have, which leaves files for all else."""
    if options.max_connections:
        return options.max_connections
    if sys.platform == "win32":
        return PENDING
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PENDING if files == resource.RLIM_INFINITY else max(1, min(files * 3 // 4, PENDING))
