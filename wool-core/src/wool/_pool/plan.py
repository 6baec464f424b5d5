"""The plan of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wool._client.client import Balancer
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator
from wool._settings.model import Core
from wool._settings.settings import Settings
from wool._worker.discoveries import ChosenDiscovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments and settings of a pool, checked.

    Attributes:
        origins: where the values of `core` come from.
        size: how many workers it starts.
        discovery: what finds others, if anything does.
        credentials: what is shown to workers on a network, if anything is.
        quorum: how many workers must be ready before it is open.
    """

    settings: Settings
    core: Core
    origins: Mapping[str, str]
    size: int
    tags: frozenset[str]
    discovery: ChosenDiscovery | None
    transport: str
    credentials: Authenticator | None
    balancer: Balancer | None
    options: CallOptions
    quorum: int
