"""Which credentials go with which connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wool._addresses import host_of, is_loopback
from wool._security.credentials import REMEDY, Authenticator, Insecure, restore
from wool.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True)
class Keyring:
    """Credentials for connections within this machine, and for those that may leave it.

    Attributes:
        local: for Unix sockets and memory.
        network: for everything else; None: there are none, and so no such connections.
    """

    local: Authenticator
    network: Authenticator | None = None

    def pick(self, address: str, *, local: bool) -> Authenticator:
        """Returns what goes with `address`.

        Raises:
            ConfigurationError: it is on a network, and there are no credentials for that.
        """
        if local:
            return self.local
        if self.network is None:
            raise ConfigurationError(
                f"{address} is on a network, so it takes credentials: {REMEDY}"
            )
        if isinstance(self.network, Insecure) and host_of(address) and not is_loopback(address):
            raise ConfigurationError(
                f"{address} may be on another machine, and insecure=True is for the loopback "
                "interface only: use credentials"
            )
        return self.network

    def export(self) -> dict[str, Any]:
        """Returns what `restore_keyring` makes the same of, in another process."""
        network = self.network.export() if self.network is not None else None
        return {"local": self.local.export(), "network": network}


def restore_keyring(exported: dict[str, Any]) -> Keyring:
    """Returns the keyring that `export` described."""
    network = exported["network"]
    return Keyring(restore(exported["local"]), restore(network) if network is not None else None)
