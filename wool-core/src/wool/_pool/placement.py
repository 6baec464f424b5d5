"""Where a pool's own workers listen, and who may call them."""

from __future__ import annotations

from dataclasses import dataclass

from wool._addresses import socket_scheme
from wool._security import sockets
from wool._security.credentials import (
    REMEDY,
    Authenticator,
    Insecure,
    Keyring,
    PoolSecret,
    SameUser,
    Token,
)
from wool._security.tokens import generate
from wool._worker.discoveries import ChosenDiscovery
from wool.exceptions import ConfigurationError
from wool.plugins import TransportPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How the own workers of a pool are reached.

    Attributes:
        keyring: who may call them, and what the pool shows to other workers.
        scheme, directory: of the Unix sockets they listen at; None: they do not.
        listen: the network address to listen at; None: the loopback interface.
    """

    keyring: Keyring
    scheme: str = ""
    directory: str | None = None
    listen: str | None = None

    def address(self) -> str | None:
        """Returns where a new worker is to listen; None leaves it to the transport."""
        if self.directory is None:
            return self.listen
        return f"{self.scheme}://{sockets.socket_in(self.directory)}"

    def discard(self) -> None:
        """Removes what was made for it."""
        if self.directory is not None:
            sockets.discard(self.directory)


def place_alone(plugin: TransportPlugin, credentials: Authenticator | None) -> Placement:
    """Places the workers of a pool that looks for no others; only that pool can call them.

    Raises:
        ConfigurationError: there are credentials for a transport that has no use for them.
    """
    if credentials is not None:
        _check_network(plugin)
        return Placement(keyring=Keyring(PoolSecret(), credentials))
    if "unix" in plugin.capabilities and sockets.SUPPORTED:
        return _on_sockets(plugin, Keyring(PoolSecret()))
    if "network" in plugin.capabilities:  # loopback has to do, where others can knock
        return Placement(keyring=Keyring(PoolSecret(), Token(generate())))
    return Placement(keyring=Keyring(PoolSecret()))


def place_among_others(
    plugin: TransportPlugin, discovery: ChosenDiscovery, credentials: Authenticator | None
) -> Placement:
    """Places the workers of a pool that are announced, so that others can hold what it takes.

    Args:
        discovery: what announces them.

    Raises:
        ConfigurationError: others could not call them.
    """
    keyring = Keyring(SameUser(), credentials)
    if not discovery.reaches_out:
        if "in-process" in plugin.capabilities:
            return Placement(keyring=keyring)
        if plugin.capabilities >= {"local", "unix"}:
            return _on_sockets(plugin, keyring)
    if "network" not in plugin.capabilities:
        raise ConfigurationError(
            f"{discovery} tells others of the pool's workers, whom these could not reach over the "
            f"transport {plugin.name!r}: choose one for networks, such as 'grpc', or another "
            "discovery"
        )
    if credentials is None or isinstance(credentials, Insecure):
        raise ConfigurationError(
            f"workers announced on the transport {plugin.name!r} have to share credentials with "
            f"those who find them: {REMEDY}"
        )
    return Placement(keyring=keyring, listen=discovery.place(plugin.name))


def _on_sockets(plugin: TransportPlugin, keyring: Keyring) -> Placement:
    return Placement(
        keyring=keyring, scheme=socket_scheme(plugin.name), directory=sockets.new_directory()
    )


def _check_network(plugin: TransportPlugin) -> None:
    if "network" not in plugin.capabilities:
        raise ConfigurationError(
            f"the transport {plugin.name!r} never leaves this machine, so it needs no credentials "
            "and reaches no others: leave them out, or choose another transport"
        )
