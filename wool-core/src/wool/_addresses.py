"""The parts of an address, `scheme://host:port` or `scheme+unix:///path`.

The module that takes hosts apart is imported where that is done: workers at Unix sockets have none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator


def scheme_of(address: str) -> str:
    """Returns the scheme of an address."""
    return address.partition("://")[0]


def host_of(address: str) -> str:
    """Returns the host in an address; nothing if there is none, or the address is none."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # the transport says what is wrong with it
        return ""


def is_loopback(address: str) -> bool:
    """Whether an address is on the loopback interface for certain."""
    host = host_of(address)
    if host == "localhost":
        return True
    import ipaddress

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


def outward_host(version: int = 4) -> str:
    """Returns a number under which others reach what listens on all interfaces of this machine.

    That is its address on the default route; where there is none, on an interface that is not the
    loopback one; its name at the very last, for that may resolve to anything. Sends nothing.

    Args:
        version: of IP, 4 or 6; the other one is used if this machine has none of it.
    """
    # A datagram socket that is connected knows the way. These addresses are for documentation.
    ways = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    for family, elsewhere in ways if version == 4 else reversed(ways):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((elsewhere, 9))
            return str(sock.getsockname()[0])
    return next(_interface_hosts(), socket.gethostname())


def reached_host() -> str:
    """Returns the IPv4 address of this machine to which SSH came that started this process.

    That one is known to be reached, which nobody knows of the default route. Nothing: there is none
    that others may reach. The variable may have been inherited on another machine.
    """
    import ipaddress

    with contextlib.suppress(ValueError, OSError):
        _, _, host, _ = os.environ.get("SSH_CONNECTION", "").split()
        if not ipaddress.IPv4Address(host).is_loopback:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((host, 0))  # fails for an address of another machine
            return host
    return ""


def _interface_hosts() -> Iterator[str]:
    """Yields the IPv4 addresses of the interfaces, but those that reach only this machine."""
    import ipaddress

    try:
        import fcntl
    except ImportError:  # there is no such way to ask
        return
    get_address = 0x8915  # SIOCGIFADDR of Linux; elsewhere it is another, and nothing is found
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                host = socket.inet_ntoa(fcntl.ioctl(sock, get_address, request)[20:24])
                if not ipaddress.ip_address(host).is_loopback:
                    yield host
