"""A worker as an instance of a service: its names, and its records."""

from __future__ import annotations

import hashlib
import re

from zeroconf.asyncio import AsyncServiceInfo

from wool.abc import ConfigurationError, WorkerInfo
from wool_zeroconf import _addresses, _interfaces, _text
from wool_zeroconf._addresses import Address
from wool_zeroconf._interfaces import Choice
from wool_zeroconf._library import TTL, TYPE
from wool_zeroconf._text import Description

_LABEL = re.compile(r"[a-z0-9-]{1,50}")


def instance(ident: str) -> str:
    """Returns the full name of the instance that stands for the worker with this id."""
    return f"{_label(ident)}.{TYPE}"


def server(ident: str) -> str:
    """Returns the name of the host of a worker whose address has only a number.

    It is not that of the machine, which has a program of its own to answer for it.
    """
    return f"wool-{_label(ident)}.local."


def describe(description: Description) -> AsyncServiceInfo:
    """Returns the records of a worker.

    Raises:
        ConfigurationError: it has too much to tell.
    """
    worker = description.worker
    address = _addresses.parse(worker.address)
    numbers = [str(address.number)] if address.number is not None else []
    named = address.host and not numbers
    return AsyncServiceInfo(
        TYPE,
        instance(worker.id),
        port=address.port,
        properties=_text.encode(description),
        server=f"{address.host.rstrip('.')}." if named else server(worker.id),
        parsed_addresses=numbers,
        host_ttl=TTL,
        other_ttl=TTL,
    )


def check(worker: WorkerInfo, choices: list[Choice]) -> None:
    """Makes sure that others can dial what is announced to them.

    Raises:
        ConfigurationError: nobody can who hears of it through the interfaces that are `choices`.
    """
    try:
        address = _addresses.parse(worker.address)
    except ValueError as error:
        raise ConfigurationError(f"A worker cannot be announced: {error}") from None
    if not worker.id:
        raise ConfigurationError(f"The worker at {address} cannot be announced: it has no id")
    if address.is_wildcard:
        reason = "it can be listened at, but not dialled"
    elif address.is_local and not _interfaces.only_loopback(choices):
        reason = "other machines cannot reach it"
    elif address.is_link_local and not _speaks_six(choices):
        reason = "its network is unknown to others unless IPv6 tells them, which is not in use"
    else:
        return
    raise ConfigurationError(
        f"The address {worker.address} cannot be announced to the network: {reason}. Give the "
        f"worker an address to advertise that others can dial, such as {_example(address)}."
    )


def _label(ident: str) -> str:
    """Returns an id as a part of names, which are short and the same in upper and lower case."""
    if _LABEL.fullmatch(ident):
        return ident
    return hashlib.blake2b(ident.encode(errors="backslashreplace"), digest_size=16).hexdigest()


def _speaks_six(choices: list[Choice]) -> bool:
    return any(isinstance(one, int) or ":" in one for one in choices)


def _example(address: Address) -> str:
    scheme = address.scheme.removesuffix("+unix")
    return f"{scheme}://192.0.2.10:{address.port or 7000}{address.path if address.host else ''}"
