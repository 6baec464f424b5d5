"""Routes: the transports that carry connections, by the addresses they lead to."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from wool import abc
from wool._addresses import scheme_of, socket_directory, socket_path
from wool._security import sockets
from wool.exceptions import ConnectFailed


class Route(Struct, frozen=True):
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


def check_socket(address: str) -> None:
    """Checks that a Unix socket is of this user's.

    Raises:
        ConnectFailed: others could have put it there, there is none, or the path is not whole.
    """
    if not socket_path(address).startswith("/"):
        said = (
            f"{address} does not name a Unix socket: that needs its whole path, as in unix:///path"
        )
        raise ConnectFailed(said, reason="refused")
    try:
        sockets.check(socket_directory(address))
    except OSError as error:
        raise ConnectFailed(f"{address}: {error.strerror}", reason="refused") from error
