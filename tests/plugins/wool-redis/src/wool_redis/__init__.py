"""Discovery `redis`. This module is light; Redis' own library is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from wool.abc import Discovery
from wool.plugins import DiscoveryPlugin, hookimpl


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the discovery."""

    url: Annotated[str, "Of the server."] = "redis://localhost:6379/0"
    password: Annotated[str | None, "Of the server."] = field(default=None, repr=False)
    namespace: Annotated[str, "Workers are found by callers that have the same."] = "wool"
    ttl: Annotated[float, "Seconds after which a killed worker is forgotten."] = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(
                f"url must begin with redis://, rediss:// or unix://, not {self.url!r}"
            )
        if parts.password:
            raise ValueError("url must not hold a password: set WOOL_REDIS__PASSWORD instead")
        if not 0.1 <= self.ttl <= 86400:
            raise ValueError(f"ttl must be from 0.1 to 86400 seconds, not {self.ttl:g}")


@hookimpl
def wool_discoveries() -> Iterable[DiscoveryPlugin]:
    """Registers the discovery."""
    reach = frozenset({"network"})
    yield DiscoveryPlugin(name="redis", api=1, options=Options, factory=_make, capabilities=reach)


def _make(options: Options) -> Discovery:
    from wool_redis._discovery import RedisDiscovery

    return RedisDiscovery(options)
