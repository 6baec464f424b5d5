"""The place of workers: where they listen, who may call them, and what is shown to others."""

from __future__ import annotations

import ipaddress
import warnings
from urllib.parse import urlsplit

from msgspec import Struct

from wool._addresses import host_of, is_loopback, is_socket, socket_scheme
from wool._plugins.lookup import scheme_transport
from wool._security import sockets
from wool._security.credentials import (
    REMEDY,
    Authenticator,
    Insecure,
    Keyring,
    MutualTls,
    PoolSecret,
    SameUser,
    Token,
    environment_token,
)
from wool._security.tokens import generate
from wool._settings.model import Tls
from wool._settings.settings import Settings
from wool._worker.backends import ChosenDiscovery
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


def network_credentials(
    address: str | None, credentials: Authenticator | None, *, insecure: bool
) -> Authenticator:
    """Returns what a worker at a network address lets callers in with.

    Args:
        address: where it is to listen; None is the loopback interface.
        insecure: whether it may do without credentials.

    Raises:
        ConfigurationError: it has no credentials and may not, or not there, do without.
    """
    place = address or "the loopback interface"
    if credentials is not None:
        if insecure:
            raise ConfigurationError("insecure=True along with credentials: leave one of them out")
        return credentials
    if not insecure:
        raise ConfigurationError(
            f"a worker at {place} could be reached by others, so it takes credentials: {REMEDY}"
        )
    if address is not None and not is_loopback(address):
        raise ConfigurationError(
            f"insecure=True is for the loopback interface only, and {place} can be reached from "
            f"other machines: {REMEDY}"
        )
    warnings.warn(
        f"a worker without authentication listens at {place}: every user and program of this "
        "machine can run code as you",
        RuntimeWarning,
        stacklevel=4,  # past `Worker`
    )
    return Insecure()


class Placement(Struct, frozen=True, kw_only=True):
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


def place(
    plugin: TransportPlugin,
    discovery: ChosenDiscovery | None,
    credentials: Authenticator | None,
    *,
    starting: bool,
    elsewhere: bool,
) -> Placement:
    """Places the workers of a pool.

    Args:
        discovery: what announces them, and finds others.
        starting: whether the pool starts any.
        elsewhere: whether it starts them on other machines.

    Raises:
        ConfigurationError: those who have to could not call them; or there are credentials for a
            transport that has no use for them.
    """
    if elsewhere and "in-process" not in plugin.capabilities:
        return _place_elsewhere(plugin, discovery, credentials)
    if discovery is None:
        return _place_alone(plugin, credentials)
    if not starting:
        return Placement(keyring=Keyring(SameUser(), credentials))
    return _place_among_others(plugin, discovery, credentials)


def _place_alone(plugin: TransportPlugin, credentials: Authenticator | None) -> Placement:
    """Places the workers of a pool that looks for no others; only that pool can call them."""
    if credentials is not None:
        _check_network(plugin)
        return Placement(keyring=Keyring(PoolSecret(), credentials))
    if "unix" in plugin.capabilities and sockets.SUPPORTED:
        return _on_sockets(plugin, Keyring(PoolSecret()))
    if "network" in plugin.capabilities:  # loopback has to do, where others can knock
        return Placement(keyring=Keyring(PoolSecret(), Token(generate())))
    return Placement(keyring=Keyring(PoolSecret()))


def _place_among_others(
    plugin: TransportPlugin, discovery: ChosenDiscovery, credentials: Authenticator | None
) -> Placement:
    """Places workers that are announced, so that others can hold what it takes to call them."""
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


def _place_elsewhere(
    plugin: TransportPlugin, discovery: ChosenDiscovery | None, credentials: Authenticator | None
) -> Placement:
    """Places workers that are on other machines.

    They share credentials that were given; a token that nobody else knows, if none were.
    """
    if "network" not in plugin.capabilities:
        raise ConfigurationError(
            f"the launcher starts workers on other machines, which the transport {plugin.name!r} "
            "does not reach: choose one for networks, such as 'ws'"
        )
    if discovery is None:
        keyring = Keyring(PoolSecret(), credentials or Token(generate()))
    else:
        keyring = _place_among_others(plugin, discovery, credentials).keyring
    return Placement(keyring=keyring, listen=f"{plugin.name}://0.0.0.0:0")


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
