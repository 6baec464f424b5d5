"""Transport `grpc`: connects machines over HTTP/2, as gRPC does, with TLS, keep-alive and probes.

Each connection is one bidirectional stream of the method `/wool.Transport/Connect` on a channel of
its own. This module is light; gRPC is imported when the transport is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wool.plugins import API, TransportPlugin, hookimpl

if TYPE_CHECKING:
    from wool.abc import Transport

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the transport.

    Attributes:
        keepalive: seconds without a sign of life after which the peer is asked for one.
        keepalive_timeout: seconds the peer has to answer. Both sides ask, and gRPC's own threads
            answer, so user code that blocks does not count. A peer that the network no longer
            reaches is lost after the sum of the two.
        max_connections: how many connections a listener has at once, those of strangers included;
            one more is refused. 0: three quarters of the files that the process may have open.
        window: bytes that a listener takes on one connection before they have been read, from
            64 KiB to 16 MiB. So much may be under way: a window of 4 MiB carries 80 MB a second
            if a round trip takes 50 ms, and 20 MB if it takes 200.
    """

    keepalive: float = 10.0
    keepalive_timeout: float = 10.0
    max_connections: int = 0
    window: int = 4 << 20

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
