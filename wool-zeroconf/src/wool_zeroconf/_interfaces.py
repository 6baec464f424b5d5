"""The network interfaces that multicast DNS is to use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import ifaddr

from wool.exceptions import ConfigurationError
from wool_zeroconf import Options


def choose(options: Options) -> list[str]:
    """Returns the interfaces to use, as they are now; each at most once for each version of IP.

    IPv6 on the loopback interface is left out: systems do not carry multicast there. So are
    link-local addresses: who hears of one does not know the interface that it belongs to.

    Raises:
        ConfigurationError: there is none, or not one that `options` names.
    """
    chosen: list[str] = []
    for numbers in _usable(options):
        for version in ".:":
            chosen += [number for number in numbers if version in number][:1]
    if not chosen:
        raise ConfigurationError(
            f"No network interface to find workers on: with ip_version={options.ip_version!r} and "
            f"interfaces={options.interfaces!r}, none of {_list(ifaddr.get_adapters())} will do"
        )
    return list(dict.fromkeys(chosen))


def host(options: Options) -> str:
    """Returns where workers are to listen so that all who hear of them reach them.

    That is the address of the interface, if `options` names a single one, and else a wildcard.

    Raises:
        ConfigurationError: as `choose`.
    """
    choose(options)
    numbers = [number for numbers in _usable(options) for number in numbers]
    if len(options.interfaces) == 1 and numbers:
        return min(numbers, key=lambda number: ":" in number)
    outward = [number for number in numbers if not ipaddress.ip_address(number).is_loopback]
    only_six = options.ip_version == "v6" or (outward and all(":" in one for one in outward))
    return "::" if only_six else "0.0.0.0"  # noqa: S104


def only_loopback(choices: Iterable[str]) -> bool:
    """Whether none of the interfaces reaches another machine."""
    return all(ipaddress.ip_address(one).is_loopback for one in choices)


def _usable(options: Options) -> list[list[str]]:
    """Returns the addresses that can be used of each interface that is wanted."""
    adapters = list(ifaddr.get_adapters())
    if not adapters:
        raise ConfigurationError(
            "No network interface to find workers on: none of this machine has an address"
        )
    found: list[list[str]] = []
    for wanted in dict.fromkeys(options.interfaces or [""]):
        before = len(found)
        for adapter in adapters:
            numbers = _numbers(adapter)
            if wanted.partition("%")[0] in numbers:
                numbers = [wanted.partition("%")[0]]
            elif wanted not in ("", adapter.name, adapter.nice_name):
                continue
            versions = {"v4": ".", "v6": ":", "both": ".:"}[options.ip_version]
            numbers = [one for one in numbers if set(versions) & set(one)]
            found.append([one for one in numbers if one != "::1" and not _is_link_local_six(one)])
        if len(found) == before:
            raise ConfigurationError(
                f"interfaces: this machine has no network interface or address {wanted!r}, "
                f"only {_list(adapters)}"
            )
    return found


def _is_link_local_six(number: str) -> bool:
    return ":" in number and ipaddress.ip_address(number).is_link_local


def _numbers(adapter: ifaddr.Adapter) -> list[str]:
    numbers = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in adapter.ips]
    return [number.partition("%")[0] for number in numbers]


def _list(adapters: Iterable[ifaddr.Adapter]) -> str:
    return ", ".join(
        f"{adapter.nice_name} ({', '.join(_numbers(adapter)) or 'no address'})"
        for adapter in adapters
    )
