"""Transport `grpc`: connects machines over HTTP/2, as gRPC does, with TLS, keep-alive and probes.

Each connection is one bidirectional stream of the method `/wool.Transport/Connect` on a channel of
its own. This module is light; gRPC is imported when the transport is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from wool.plugins import API, TransportPlugin, hookimpl

if TYPE_CHECKING:
    from wool.abc import Transport

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the transport. Times are in seconds.

    Raises:
        ValueError: a setting makes no sense; the message names it.
    """

    keepalive: Annotated[float, "Seconds of silence until a peer is asked for a sign of life."] = (
        10.0
    )
    keepalive_timeout: Annotated[float, "Seconds it has to answer; gRPC's threads do so."] = 10.0
    max_connections: Annotated[
        int,
        "Connections that a listener has at once, strangers included; 0: three quarters of the "
        "files that the process may have open.",
    ] = 0
    window: Annotated[
        int,
        "Bytes that a listener takes on one connection before they are read, 64 KiB to 16 MiB: "
        "what may be under way.",
    ] = 4 << 20

    def __post_init__(self) -> None:
        for name in ("keepalive", "keepalive_timeout"):
            value = getattr(self, name)
            if not 0.1 <= value <= 86_400:
                raise ValueError(f"{name} must be from 0.1 to 86400 seconds, not {value!r}")
        if self.max_connections < 0:
            raise ValueError(
                "max_connections must be a number of connections, or 0 for what the limit of open "
                f"files allows, not {self.max_connections!r}"
            )
        if not 64 << 10 <= self.window <= 16 << 20:
            raise ValueError(f"window must be from 65536 to 16777216 bytes, not {self.window!r}")


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport."""
    yield TransportPlugin(
        name="grpc",
        api=API,
        options=Options,
        factory=_make,
        capabilities=frozenset({"network", "unix"}),
    )


def _make(options: Options) -> Transport:
    from wool_grpc._transport import GrpcTransport

    return GrpcTransport(options)
