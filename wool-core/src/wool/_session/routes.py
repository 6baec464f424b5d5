"""Which transport carries connections to an address."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from wool import abc
from wool._security import sockets
from wool.exceptions import ConnectFailed


@dataclass(frozen=True, slots=True)
class Route:
    """A transport, and what kind of addresses it is used for.

    Attributes:
        transport: the transport.
        local: whether connections stay on this machine, so that they need no TLS.
    """

    transport: abc.Transport
    local: bool


class Routes:
    """The transports in use, by the scheme of the addresses they carry.

    Args:
        find: makes the route for addresses like the given one; asked once for each scheme.
    """

    def __init__(self, find: Callable[[str], Route]) -> None:
        self._find = find
        self._routes: dict[str, Route] = {}

    def to(self, address: str) -> Route:
        """Returns the route to an address.

        Raises:
            ConfigurationError, PluginError: there is no transport for it.
        """
        scheme = scheme_of(address)
        route = self._routes.get(scheme)
        if route is None:
            route = self._routes[scheme] = self._find(address)
        return route


def scheme_of(address: str) -> str:
    return address.partition("://")[0]


def socket_scheme(transport: str) -> str:
    """Returns the scheme that a transport's addresses of Unix sockets have."""
    return transport if transport == "unix" else f"{transport}+unix"


def is_socket(address: str) -> bool:
    """Whether an address is the path of a Unix socket."""
    scheme = scheme_of(address)
    return scheme == "unix" or scheme.endswith("+unix")


def socket_path(address: str) -> str:
    """Returns the path of the Unix socket at `address`."""
    return address.partition("://")[2]


def socket_directory(address: str) -> str:
    """Returns the directory that it is in."""
    return os.path.dirname(socket_path(address))


def check_socket(address: str) -> None:
    """Checks that a Unix socket is of this user's.

    Raises:
        ConnectFailed: others could have put it there, or there is none.
    """
    try:
        sockets.check(socket_directory(address))
    except OSError as error:
        raise ConnectFailed(f"{address}: {error.strerror}", reason="refused") from error
