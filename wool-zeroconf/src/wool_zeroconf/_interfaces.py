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
    if not adapters:
        raise ConfigurationError(
            "No network interface to find workers on: none of this machine has an address"
        )
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


def host(options: Options) -> str:
    """Returns where workers are to listen so that all who hear of them reach them.

    That is the address of the interface, if `options` names a single one, and else a wildcard.

    Raises:
        ConfigurationError: as `choose`.
    """
    choose(options)
    numbers = [
        number
        for wanted in options.interfaces or [""]
        for adapter in ifaddr.get_adapters()
        if _fits(adapter, wanted)
        for number in _usable(adapter, wanted, options.ip_version)
        if not _is_link_local(number)
    ]
    if len(options.interfaces) == 1 and numbers:
        return min(numbers, key=lambda number: ":" in number)
    outward = [number for number in numbers if not ipaddress.ip_address(number).is_loopback]
    only_six = options.ip_version == "v6" or (outward and all(":" in one for one in outward))
    return "::" if only_six else "0.0.0.0"  # noqa: S104


def only_loopback(choices: Iterable[Choice]) -> bool:
    """Whether none of the interfaces reaches another machine."""
    return all(isinstance(one, str) and ipaddress.ip_address(one).is_loopback for one in choices)


def _fits(adapter: ifaddr.Adapter, wanted: str) -> bool:
    return wanted in ("", adapter.name, adapter.nice_name) or _plain(wanted) in _numbers(adapter)


def _pick(
    adapter: ifaddr.Adapter, wanted: str, version: str, taken: list[Choice]
) -> Iterator[Choice]:
    """Yields what stands for one interface: an IPv4 address, and one of IPv6 or the index."""
    numbers = _usable(adapter, wanted, version)
    four = [number for number in numbers if "." in number]
    six = [number for number in numbers if ":" in number]
    if four:
        yield four[0]
    if six:
        # Packets from a link-local address tell their receivers which interface they came by.
        best = (list(filter(_is_link_local, six)) or six)[0]
        yield adapter.index if best in taken and adapter.index is not None else best


def _usable(adapter: ifaddr.Adapter, wanted: str, version: str) -> list[str]:
    """Returns the addresses of an interface, or the one that is wanted, of this version of IP."""
    numbers = _numbers(adapter)
    if _plain(wanted) in numbers:
        numbers = [_plain(wanted)]
    if version != "both":
        numbers = [number for number in numbers if (":" in number) == (version == "v6")]
    return [number for number in numbers if number != "::1"]


def _is_link_local(number: str) -> bool:
    return ":" in number and ipaddress.ip_address(number).is_link_local


def _numbers(adapter: ifaddr.Adapter) -> list[str]:
    return [_plain(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for ip in adapter.ips]


def _plain(number: str) -> str:
    return number.partition("%")[0]


def _list(adapters: Iterable[ifaddr.Adapter]) -> str:
    return ", ".join(
        f"{adapter.nice_name} ({', '.join(_numbers(adapter)) or 'no address'})"
        for adapter in adapters
    )
