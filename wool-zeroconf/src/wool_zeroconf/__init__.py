"""Discovery `zeroconf`: the machines of a local network find each other's workers by multicast DNS.

Each worker is an instance of the service `_wool._tcp.local.`. This module is light; the library is
imported when the discovery is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from wool.plugins import API, DiscoveryPlugin, hookimpl

if TYPE_CHECKING:
    from wool.abc import Discovery

__all__ = ["Options"]

MOST_NAMESPACE = 100
"""Bytes that the name of a namespace may have: workers tell it in each of their packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the discovery.

    Raises:
        ValueError: a setting makes no sense; the message names it.
    """

    namespace: Annotated[str, "Only workers and callers of the same namespace meet."] = "default"
    interfaces: Annotated[
        tuple[str, ...], "Names or IP addresses of the network interfaces to use; empty: all."
    ] = ()
    ip_version: Annotated[Literal["v4", "v6", "both"], "The kinds of IP to use."] = "both"
    interval: Annotated[
        float,
        "Seconds after which workers tell again that they are there; three times that after the "
        "last word, they are gone. 1 or more.",
    ] = 10.0

    def __post_init__(self) -> None:
        name = self.namespace
        if not name or not name.isprintable() or len(name.encode()) > MOST_NAMESPACE:
            raise ValueError(
                f"namespace must be a name of up to {MOST_NAMESPACE} bytes, not {name[:200]!r}"
            )
        if isinstance(self.interfaces, str) or not all(self.interfaces):
            raise ValueError(
                f"interfaces must be several names or IP addresses, such as ('eth0',), "
                f"not {self.interfaces!r}"
            )
        if self.ip_version not in ("v4", "v6", "both"):
            raise ValueError(f"ip_version must be 'v4', 'v6' or 'both', not {self.ip_version!r}")
        if not 1 <= self.interval < math.inf:
            raise ValueError(f"interval must be at least 1 second, not {self.interval!r}")


@hookimpl
def wool_discoveries() -> Iterable[DiscoveryPlugin]:
    """Registers the discovery."""
    yield DiscoveryPlugin(
        name="zeroconf",
        api=API,
        options=Options,
        factory=_make,
        capabilities=frozenset({"network"}),
    )


def _make(options: Options) -> Discovery:
    from wool_zeroconf._discovery import ZeroconfDiscovery  # imports asyncio and zeroconf

    return ZeroconfDiscovery(options)
