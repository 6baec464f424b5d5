"""Which discovery is used, and what it means for the transport of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wool import abc
from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT
from wool._plugins.schemes import scheme_transport
from wool._settings.blame import blaming
from wool._settings.settings import Settings
from wool._settings.sources import ARGUMENT
from wool.exceptions import ConfigurationError, WoolError
from wool.plugins import DiscoveryPlugin

NETWORK = ("grpc", "ws")
"""Transports for other machines, in the order in which they are chosen."""


@dataclass(frozen=True, slots=True)
class ChosenDiscovery:
    """A discovery that is used.

    Attributes:
        backend: the discovery itself.
        plugin: the back-end it is from; None: it was made by the program.
    """

    backend: abc.Discovery
    plugin: DiscoveryPlugin | None = None

    @property
    def reaches_out(self) -> bool:
        """Whether it is certain that workers of other machines are found."""
        return self.plugin is not None and "network" in self.plugin.capabilities

    def place(self, transport: str, port: int = 0) -> str | None:
        """Returns where a worker listens with a network transport to be found; None: loopback."""
        if self.plugin is not None and "local" in self.plugin.capabilities:
            return None
        host = self.backend.host
        return f"{transport}://[{host}]:{port}" if ":" in host else f"{transport}://{host}:{port}"

    def __str__(self) -> str:
        name = repr(self.plugin.name) if self.plugin else type(self.backend).__name__
        return f"the discovery {name}"


def choose_discovery(
    settings: Settings,
    name: str | None,
    arguments: Mapping[str, Any] | None = None,
    *,
    origin: str = ARGUMENT,
) -> ChosenDiscovery | None:
    """Returns the discovery called `name`, made as the settings say; None for None.

    Args:
        arguments: options that precede those of the settings.
        origin: where the name is from.

    Raises:
        ConfigurationError, PluginError: there is none, or it cannot be used.
    """
    if name is None:
        return None
    with blaming(origin):
        if "://" in name:
            raise ConfigurationError(
                f"{name!r} is the address of a worker, not the name of a discovery: give a list of "
                f"addresses, discovery=[{name!r}], or set WOOL_DISCOVERY=static and "
                f"WOOL_STATIC__ADDRESSES={name}"
            )
        found = lookup.discovery(name)
    options, _ = settings.options(name, found.plugin.options, arguments)
    return ChosenDiscovery(found.make(options), found.plugin)


def choose_transport(chosen: str | None, discovery: ChosenDiscovery | None) -> str:
    """Returns the name of the transport that workers listen with.

    Args:
        chosen: what is asked for.
        discovery: what others find them by.

    Raises:
        ConfigurationError: there is none that reaches those others.
    """
    if chosen is not None:
        return chosen
    if discovery is None or not discovery.reaches_out:
        return "unix"
    installed = lookup.process().names_of(TRANSPORT)
    scheme = discovery.backend.scheme
    expected = [scheme_transport(f"{scheme}://")] if scheme else []
    for name in (*expected, *NETWORK):
        if name in installed:
            return name
    raise ConfigurationError(
        "the discovery reaches other machines, which takes a transport that does: "
        'pip install "wool-core[grpc]" or "wool-core[ws]"'
    )


def words(error: Exception) -> str:
    """Says what a discovery has raised."""
    return str(error) if isinstance(error, WoolError) else f"{type(error).__name__}: {error}"
