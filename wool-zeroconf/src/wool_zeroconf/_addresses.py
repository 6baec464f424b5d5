"""Addresses of workers, `scheme://host:port/path`, whatever the transport."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)(?:%(?P<zone>[^\[\]:/\s]+))?\]|(?P<name>[^\[\]:/@?#%\s]*))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?"
)
_LABEL = re.compile(r"[^.]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What an address says.

    Attributes:
        host: name or number of a machine, without brackets; empty if there is none, as for a
            Unix socket.
        zone: of a link-local IPv6 address, the interface of this machine that it belongs to.
        port: 0 if the address has none.
        path: what follows, with its slash.
    """

    scheme: str
    host: str = ""
    zone: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"{self.host}%{self.zone}" if self.zone else self.host
        host = f"[{host}]" if ":" in host else host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def number(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host, if it is a number; an IPv4 address in IPv6's clothes is given as IPv4."""
        try:
            number = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return getattr(number, "ipv4_mapped", None) or number

    @property
    def is_local(self) -> bool:
        """Whether only this machine can dial it."""
        if (number := self.number) is not None:
            return number.is_loopback
        host = self.host.rstrip(".").lower()
        return not host or host == "localhost" or host.endswith(".localhost")

    @property
    def is_wildcard(self) -> bool:
        """Whether it is one to listen at, which nobody can dial."""
        return (number := self.number) is not None and number.is_unspecified

    @property
    def is_link_local(self) -> bool:
        """Whether it is an IPv6 address that means nothing without an interface."""
        return (number := self.number) is not None and number.version == 6 and number.is_link_local

    def within(self, zone: str) -> Address:
        """Returns the address as a machine writes it that reaches it through interface `zone`."""
        return replace(self, zone=zone)


def parse(text: str) -> Address:
    """Takes an address apart.

    Raises:
        ValueError: it is none; says why.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not text.isprintable():
        raise ValueError(f"{text!r} is not an address of the form scheme://host:port/path")
    host = match["six"] or match["name"]
    port = int(match["port"] or 0)
    address = Address(
        scheme=match["scheme"],
        host=host,
        zone=match["zone"] or "",
        port=port,
        path=match["path"] or "",
    )
    if port > 65535:
        raise ValueError(f"{text!r} has a port above 65535")
    if match["six"] and address.number is None:
        raise ValueError(f"{text!r}: {host!r} is not an IPv6 address")
    if not match["six"] and host and address.number is None and not _is_name(host):
        raise ValueError(f"{text!r}: {host!r} is neither the name of a host nor its IP address")
    return address


def _is_name(host: str) -> bool:
    labels = host.rstrip(".").split(".")
    return all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
