"""Access to a worker: where it may listen, and the credentials that the settings hold."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from wool._addresses import host_of, is_loopback, is_socket, socket_scheme
from wool._plugins.schemes import scheme_transport
from wool._security.credentials import Authenticator, MutualTls, Token, environment_token
from wool._settings.model import Tls
from wool._settings.settings import Settings
from wool.exceptions import ConfigurationError
from wool.plugins import TransportPlugin


def credentials_of(settings: Settings) -> Authenticator | None:
    """Returns credentials for networks, from `WOOL_TOKEN`, `WOOL_TOKEN_FILE` or the table `tls`.

    Returns None if nothing is set.

    Raises:
        ConfigurationError: what is set is of no use, or does not go together.
    """
    tls, origins = settings.options("tls", Tls)
    token = environment_token()
    own = {"cert": tls.cert, "key": tls.key}
    given = [f"{name} from {origins[name]}" for name, value in own.items() if value is not None]
    if token is not None:
        if given:
            raise ConfigurationError(
                f"there is a token in the environment, and a certificate ({', '.join(given)}): "
                "workers authenticate with one or the other, so unset one of them"
            )
        return Token(token, proxy=tls.proxy, ca=str(tls.ca) if tls.ca and tls.proxy else None)
    if not given:
        return None
    missing = [name for name in ("ca", "cert", "key") if getattr(tls, name) is None]
    if missing:
        raise ConfigurationError(
            f"mutual TLS needs ca, cert and key: {' and '.join(missing)} is missing beside "
            f"{', '.join(given)}"
        )
    return MutualTls(str(tls.ca), str(tls.cert), str(tls.key), tls.name)


def is_local(address: str | None, plugin: TransportPlugin) -> bool:
    """Whether what listens there with a transport can be reached from this machine alone."""
    return "network" not in plugin.capabilities or (address is not None and is_socket(address))


def check_place(address: str | None, plugin: TransportPlugin) -> None:
    """Checks that a transport that is not for networks listens on no network.

    Raises:
        ConfigurationError: it would, or nobody could tell; or it is a socket that others, who are
            in other folders, would not find.
    """
    if address is not None and is_socket(address) and ":///" not in address:
        scheme = address.partition("://")[0]
        raise ConfigurationError(
            f"{address!r} does not name a Unix socket: write its whole path, {scheme}:///path"
        )
    if address is None or is_socket(address) or plugin.capabilities & {"network", "in-process"}:
        return
    if "unix" in plugin.capabilities:
        raise ConfigurationError(
            f"the transport {plugin.name!r} never leaves this machine, so it cannot listen at "
            f"{address}: give the path of a Unix socket, {socket_scheme(plugin.name)}:///path, or "
            "no address, or choose another transport"
        )
    if host_of(address) and not is_loopback(address):
        raise ConfigurationError(
            f"the transport {plugin.name!r} never leaves this machine, and {address} can be "
            "reached from others: choose another address or another transport"
        )


def check_advertised(address: str, transport: str) -> None:
    """Checks that others can dial what they are told of a worker.

    Args:
        transport: the name of the one that it listens with.

    Raises:
        ConfigurationError: they cannot.
    """
    name = scheme_transport(address)
    if name != transport:
        raise ConfigurationError(
            f"advertise: {address} is for the transport {name!r}, and the worker listens with "
            f"{transport!r}"
        )
    if _is_wildcard(address):
        raise ConfigurationError(
            f"advertise: {address} can be listened at, but not dialled: give an address under "
            "which others reach the worker"
        )


def _is_wildcard(address: str) -> bool:
    """Whether an address names no place, but all hosts or any port."""
    try:
        return urlsplit(address).port == 0 or ipaddress.ip_address(host_of(address)).is_unspecified
    except ValueError:
        return False  # a name; or no address, which is said when it is dialled
