"""Whether multicast DNS works on the network interfaces of this machine."""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from wool.cli.checks.finding import Finding, advice, ok, problem

GROUP, PORT = "224.0.0.251", 5353
PATIENCE = 1.0
"""Seconds for a packet to come back to the machine that sent it."""

_FLAG_UP, _FLAG_LOOPBACK, _FLAG_MULTICAST = 0x1, 0x8, 0x1000
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_DNS = "workers elsewhere are then found by `--discovery dns`, or `static` with their addresses"


def check_multicast(interfaces: Sequence[str] = ()) -> Iterator[Finding]:
    """Sends a packet out of each interface, and looks whether it comes back.

    Args:
        interfaces: those to look at, by name or address; by default all that are up.
    """
    if is_container():
        yield advice(
            "multicast",
            "this is a container, and most of their networks do not pass multicast on",
            f"`docker run --network host` and `hostNetwork: true` do; {_DNS}",
        )
    if sys.platform != "linux":
        return  # how interfaces are listed differs; announcing, which is tried next, tells as well
    looked = list(_usable(interfaces))
    for name, address in looked:
        yield _check_interface(name, address)
    if not looked and _speaks_ipv6(interfaces):
        yield ok("multicast", "no interface has an IPv4 address; announcing tries IPv6")
    elif not looked:
        yield problem(
            "multicast",
            "no network interface is up that does multicast and has an address",
            f"`ip address` shows what there is; {_DNS}",
        )


def is_container() -> bool:
    """Whether this process seems to run in a container."""
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(path.exists() for path in _CONTAINER)


def _usable(interfaces: Sequence[str]) -> Iterator[tuple[str, str]]:
    for _, name in socket.if_nameindex():
        flags = int.from_bytes(_asked(name, _SIOCGIFFLAGS)[16:18], sys.byteorder)
        number = _asked(name, _SIOCGIFADDR)[20:24]
        address = socket.inet_ntoa(number) if number else None
        wanted = name in interfaces or address in interfaces
        if address is None or not flags & _FLAG_UP or not (wanted or not interfaces):
            continue
        if flags & _FLAG_MULTICAST or (wanted and flags & _FLAG_LOOPBACK):
            yield name, address


def _speaks_ipv6(interfaces: Sequence[str]) -> bool:
    """Whether an interface, of these or any besides loopback, has an IPv6 address and is up."""
    addresses = Path("/proc/net/if_inet6")
    lines = addresses.read_text().splitlines() if addresses.exists() else []
    names = {line.split()[-1] for line in lines} - {"lo"}
    named = [one for one in interfaces if ":" in one or one in names]
    return bool(named if interfaces else names)


def _asked(name: str, question: int) -> bytes:
    """Returns what the kernel says of an interface; nothing if it has no answer."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        return fcntl.ioctl(sock, question, struct.pack("256s", name.encode()[:15]))
    return b""


def _check_interface(name: str, address: str) -> Finding:
    place = f"{name} ({address})"
    try:
        heard = _is_heard(address)
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            remedy = f"ip route add 224.0.0.0/4 dev {name}"
        elif error.errno == errno.EADDRINUSE:
            remedy = (
                f"have the program that listens there share the port (`ss -lup 'sport = {PORT}'` "
                "names it; for Avahi, disallow-other-stacks=no)"
            )
        elif error.errno in (errno.EPERM, errno.EACCES):
            remedy = f"have the firewall let UDP port {PORT} through"
        else:
            remedy = f"choose other interfaces with --interface; {_DNS}"
        return problem("multicast", f"not on {place}: {os.strerror(error.errno or 0)}", remedy)
    if not heard:
        return problem(
            "multicast",
            f"what is sent out of {place} to {GROUP}, UDP port {PORT}, does not arrive",
            f"have the firewall let UDP port {PORT} in and out (`nft list ruleset`); {_DNS}",
        )
    return ok("multicast", f"goes out of {place}; a switch or router may still stop it")


def _is_heard(address: str) -> bool:
    """Whether a question sent out of an interface comes back."""
    group = socket.inet_aton(GROUP) + socket.inet_aton(address)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AttributeError, OSError):
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ear.bind(("", PORT))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        question = _question()
        mouth.sendto(question, (GROUP, PORT))
        return _arrives(ear, question)


def _arrives(ear: socket.socket, packet: bytes) -> bool:
    deadline = time.monotonic() + PATIENCE
    while (rest := deadline - time.monotonic()) > 0:
        if not select.select([ear], [], [], rest)[0]:
            return False
        if ear.recv(9000) == packet:
            return True
    return False


def _question() -> bytes:
    """A question of multicast DNS that nobody has an answer to."""
    label = f"wool-doctor-{secrets.token_hex(8)}".encode()
    name = b"".join(bytes([len(part)]) + part for part in (label, b"_wool", b"_tcp", b"local"))
    return struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">BHH", 0, 12, 1)
