"""Who gets at a worker: where it may listen, and the credentials that the settings hold."""

from __future__ import annotations

from urllib.parse import urlsplit

from wool._security.credentials import Credentials, MutualTls, Token, environment_token
from wool._security.listening import is_loopback
from wool._session.routes import is_socket, socket_scheme
from wool._settings.model import Tls
from wool._settings.settings import Settings
from wool.exceptions import ConfigurationError
from wool.plugins import TransportPlugin


def credentials_of(settings: Settings) -> Credentials | None:
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
        ConfigurationError: it would, or nobody could tell.
    """
    if address is None or is_socket(address) or plugin.capabilities & {"network", "in-process"}:
        return
    if "unix" in plugin.capabilities:
        raise ConfigurationError(
            f"the transport {plugin.name!r} never leaves this machine, so it cannot listen at "
            f"{address}: give the path of a Unix socket, {socket_scheme(plugin.name)}:///path, or "
            "no address, or choose another transport"
        )
    if urlsplit(address).hostname and not is_loopback(address):
        raise ConfigurationError(
            f"the transport {plugin.name!r} never leaves this machine, and {address} can be "
            "reached from others: choose another address or another transport"
        )
