"""Addresses: `grpc://host:port` and `grpc+unix:///path`."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import socket
import stat
from dataclasses import dataclass
from urllib.parse import unquote

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
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConnectFailed(
            f"{address.text}: the host name {address.host!r} cannot be resolved: {reason}"
        ) from None
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [Address(address.text, host=host, port=address.port) for host in hosts]


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


def same_host(address: Address) -> bool:
    """Whether somebody with this address is on this machine, as far as the address tells."""
    if address.path:
        return True
    number = ipaddress.ip_address(address.host)
    mapped = getattr(number, "ipv4_mapped", None)
    return (mapped or number).is_loopback


def known(address: Address) -> dict[str, object]:
    """Returns what `Connection.extra` tells of a peer."""
    return {"peer": address.endpoint, "same_host": same_host(address)}


# Places to listen at -----------------------------------------------------------------------------


def claim(place: Address) -> None:
    """Checks that nobody listens at a place, and removes the socket of one who has died.

    gRPC does not tell why it cannot have a place, and takes away the Unix socket of somebody who
    lives.

    Raises:
        OSError: it is taken, or no place to listen at.
    """
    if not place.path:
        _bind(place)
        return
    try:
        mode = os.lstat(place.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode) or _answers(place.path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(place.path)


def is_taken(place: Address) -> bool:
    """Whether somebody listens at a place."""
    if place.path:
        return os.path.exists(place.path)
    try:
        _bind(place)
    except OSError:
        return True
    return False


def _bind(place: Address) -> None:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if os.name == "posix":  # elsewhere the option means something else
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Looked up, for the interface that a link-local address may name.
        flag = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(place.host, place.port, family, socket.SOCK_STREAM, 0, flag)
        sock.bind(found[0][4])


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
        return True
