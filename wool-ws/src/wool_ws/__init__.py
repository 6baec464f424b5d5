"""Transport `ws`: connections over WebSocket, which pass wherever HTTP does.

This module is light; the transport itself is imported when it is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from wool.abc import Transport
from wool.plugins import API, TransportPlugin, hookimpl

__all__ = ["Options"]

_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")
_MOST = 32767
"""Seconds of TCP's keep-alive that Linux takes; more it would pass over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the transport. Times are in seconds.

    Raises:
        ValueError: a setting makes no sense; the message names it.
    """

    path: Annotated[str, "HTTP path of addresses that have none."] = "/"
    health: Annotated[str, "HTTP path that answers 200 while a worker listens; empty: none."] = (
        "/health"
    )
    keepalive: Annotated[float, "Seconds of silence until TCP asks whether the peer is there."] = (
        10.0
    )
    keepalive_timeout: Annotated[float, "Seconds it may then not answer; 1 or more."] = 10.0
    heartbeat: Annotated[
        float, "Seconds of silence until a sign of life is sent, so that proxies stay connected."
    ] = 20.0

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"path must be the path of a URL, such as /wool; not {self.path!r}")
        if self.health and not _PATH.fullmatch(self.health):
            raise ValueError(
                f"health must be the path of a URL, such as /health, or empty; not {self.health!r}"
            )
        if self.health == self.path:
            raise ValueError(f"health and path must differ; both are {self.path!r}")
        for name in ("keepalive", "keepalive_timeout"):
            value: float = getattr(self, name)
            if not 1 <= value <= _MOST:
                raise ValueError(f"{name} must be from 1 to {_MOST} seconds; not {value!r}")
        if not 0.1 <= self.heartbeat < math.inf:
            raise ValueError(f"heartbeat must be at least 0.1 seconds; not {self.heartbeat!r}")


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport."""
    yield TransportPlugin(
        name="ws",
        api=API,
        options=Options,
        factory=_make,
        capabilities=frozenset({"network", "uid", "unix"}),
    )


def _make(options: Options) -> Transport:
    from wool_ws._transport import WebSocketTransport  # imports asyncio, ssl and websockets

    return WebSocketTransport(options)
