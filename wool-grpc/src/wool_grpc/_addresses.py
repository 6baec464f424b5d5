"""Addresses: `grpc://host:port` and `grpc+unix:///path`."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace
from urllib.parse import unquote

from wool._transports import failures, sockets
from wool.abc import ConnectFailed, outward_host

MAX_PATH = 100
_NETWORK = re.compile(
    r"grpc://(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/@?#]+)):(?P<port>\d{1,5})/?"
)
_UNIX = "grpc+unix://"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to dial.

    Attributes:
        text: the whole address, for messages.
        host: name or number of a host, without brackets; empty for a Unix socket.
        port: TCP port.
        path: of a Unix socket; empty for a host.
    """

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def where(self) -> sockets.Place:
        """The form that sockets take; the host has to be a number."""
        if self.path:
            return sockets.unix_place(self.path)
        # Looked up, for the interface that a link-local address may name.
        flag = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM, 0, flag)
        return found[0][0], found[0][4]

    @property
    def target(self) -> str:
        """The form that gRPC takes; the host has to be a number."""
        if self.path:
            return f"unix:{self.path}"
        family = "ipv6" if ":" in self.host else "ipv4"
        return f"{family}:{self.endpoint}"

    @property
    def endpoint(self) -> str:
        """The form that people read."""
        if self.path:
            return "unix socket"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Takes an address apart.

    Raises:
        ConnectFailed: it is none, or not one of this transport.
    """
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or "\0" in path:
            raise ConnectFailed(f"{text!r} does not name a socket: write grpc+unix:///path")
        if len(os.fsencode(path)) > MAX_PATH:
            raise ConnectFailed(f"{path!r} is longer than the {MAX_PATH} bytes a socket may have")
        return Address(text, path=path)
    match = _NETWORK.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ConnectFailed(
            f"{text!r} is not an address of the transport grpc: write grpc://host:port, "
            "grpc://[IPv6]:port or grpc+unix:///path"
        )
    host = match["host"] or match["six"]
    if match["six"] and not is_number(host):
        raise ConnectFailed(f"{text!r}: {host!r} is not an IPv6 address")
    return Address(text, host=host, port=int(match["port"]))


def is_number(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_wildcard(host: str) -> bool:
    """Whether `host` is a number that stands for all of this machine's."""
    return is_number(host) and ipaddress.ip_address(host).is_unspecified


async def resolve(address: Address) -> list[Address]:
    """Returns addresses whose hosts are numbers, best first.

    Raises:
        ConnectFailed: the name is not known.
    """
    if address.path or is_number(address.host):
        return [address]
    try:
        found = await sockets.resolve(address.host, address.port)
    except (OSError, UnicodeError) as error:
        raise failures.not_reached(address.text, error) from None
    return [replace(address, host=str(where[0])) for _, where in found]


def advertised(host: str, port: int) -> str:
    """Returns the address at which others reach what listens at `host`."""
    if is_wildcard(host):
        host = outward_host(ipaddress.ip_address(host).version)
    return f"grpc://{Address('', host=host, port=port).endpoint}"


def peer_of(text: str) -> Address:
    """Takes apart what gRPC says of the peer of a call."""
    kind, _, rest = text.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return Address(text, path=rest or "unnamed")
    host, _, port = unquote(rest).rpartition(":")
    return Address(text, host=host.strip("[]"), port=int(port))


def known(address: Address) -> dict[str, object]:
    """Returns what `Connection.extra` tells of a peer."""
    same = bool(address.path) or sockets.is_loopback(address.host)
    return {"peer": address.endpoint, "same_host": same}


def is_taken(place: Address) -> bool:
    """Whether somebody listens at a place."""
    if place.path:
        return os.path.exists(place.path)
    try:
        sockets.listen(place.where).close()
    except OSError:
        return True
    return False
