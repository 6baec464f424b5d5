"""What an address says, `scheme://host:port` or `scheme+unix:///path`."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit


def scheme_of(address: str) -> str:
    """Returns the scheme of an address."""
    return address.partition("://")[0]


def host_of(address: str) -> str:
    """Returns the host in an address; nothing if there is none, or the address is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # the transport says what is wrong with it
        return ""


def is_loopback(address: str) -> bool:
    """Whether an address is on the loopback interface for certain."""
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_socket(address: str) -> bool:
    """Whether an address is the path of a Unix socket."""
    scheme = scheme_of(address)
    return scheme == "unix" or scheme.endswith("+unix")


def socket_scheme(transport: str) -> str:
    """Returns the scheme that a transport's addresses of Unix sockets have."""
    return transport if transport == "unix" else f"{transport}+unix"


def socket_path(address: str) -> str:
    """Returns the path of the Unix socket at `address`."""
    return address.partition("://")[2]


def socket_directory(address: str) -> str:
    """Returns the directory that it is in."""
    return os.path.dirname(socket_path(address))
