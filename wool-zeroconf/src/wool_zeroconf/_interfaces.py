"""The network interfaces that multicast DNS is to use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

import ifaddr

from wool.abc import ConfigurationError
from wool_zeroconf import Options

Choice = str | int
"""An interface as zeroconf takes it: one of its IP addresses or, for IPv6, its index."""


def choose(options: Options) -> list[Choice]:
    """Returns the interfaces to use, as they are now; each at most once for each version of IP.

    IPv6 on the loopback interface is left out: systems do not carry multicast there.

    Raises:
        ConfigurationError: there is none, or not one that `options` names.
    """
    adapters = list(ifaddr.get_adapters())
    chosen: list[Choice] = []
    for wanted in options.interfaces or [""]:
        fitting = [adapter for adapter in adapters if _fits(adapter, wanted)]
        if not fitting:
            raise ConfigurationError(
                f"interfaces: this machine has no network interface or address {wanted!r}, "
                f"only {_list(adapters)}"
            )
        for adapter in fitting:
            found = list(_pick(adapter, wanted, options.ip_version, chosen))
            chosen += [choice for choice in found if choice not in chosen]
    if not chosen:
        raise ConfigurationError(
            f"No network interface to find workers on: with ip_version={options.ip_version!r} and "
            f"interfaces={options.interfaces!r}, none of {_list(adapters)} will do"
        )
    return chosen


def only_loopback(choices: Iterable[Choice]) -> bool:
    """Whether none of the interfaces reaches another machine."""
    return all(isinstance(one, str) and ipaddress.ip_address(one).is_loopback for one in choices)


def _fits(adapter: ifaddr.Adapter, wanted: str) -> bool:
    return wanted in ("", adapter.name, adapter.nice_name) or _plain(wanted) in _numbers(adapter)


def _pick(
    adapter: ifaddr.Adapter, wanted: str, version: str, taken: list[Choice]
) -> Iterator[Choice]:
    """Yields what stands for one interface: an IPv4 address, and one of IPv6 or the index."""
    numbers = _numbers(adapter)
    if _plain(wanted) in numbers:
        numbers = [_plain(wanted)]
    four = [number for number in numbers if "." in number]
    six = [number for number in numbers if ":" in number and number != "::1"]
    if four and version != "v6":
        yield four[0]
    if six and version != "v4":
        # Packets from a link-local address tell their receivers which interface they came by.
        link = [number for number in six if ipaddress.ip_address(number).is_link_local]
        best = (link or six)[0]
        yield adapter.index if best in taken and adapter.index is not None else best


def _numbers(adapter: ifaddr.Adapter) -> list[str]:
    return [_plain(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for ip in adapter.ips]


def _plain(number: str) -> str:
    return number.partition("%")[0]


def _list(adapters: Iterable[ifaddr.Adapter]) -> str:
    return ", ".join(
        f"{adapter.nice_name} ({', '.join(_numbers(adapter)) or 'no address'})"
        for adapter in adapters
    )
