"""A worker as an instance of a service: the names, records and properties that tell of it.

The TXT record holds a version and a text in JSON, cut into strings of the length that DNS allows.
The load is left out: it changes all the time.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, urlsplit

import msgspec
from zeroconf.asyncio import AsyncServiceInfo

from wool.abc import WorkerInfo
from wool.exceptions import ConfigurationError

TYPE = "_wool._tcp.local."
"""The service that workers are instances of."""

MOST_TEXT = 1200
"""Bytes of the text. With the other records of a worker it then fits into a packet that every
network carries whole."""

_VERSION = "1"
_STRING = 240  # bytes of one of its strings, which has 255 with its name
_LABEL = re.compile(r"[a-z0-9-]{1,50}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The description of a worker.

    Attributes:
        worker: without its load.
        namespace: only callers of the same namespace are to see it.
        revision: the greater, the newer. Late copies of old records are told by it.
        lease: seconds after which it is gone unless it is told of again.
    """

    worker: WorkerInfo
    namespace: str
    revision: int
    lease: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Description).decode


def instance(ident: str) -> str:
    """Returns the full name of the instance that stands for the worker with this id."""
    return f"{_label(ident)}.{TYPE}"


def records(description: Description) -> AsyncServiceInfo:
    """Returns the records of a worker.

    Raises:
        ConfigurationError: there is something in it that cannot be told, or too much; says what.
    """
    worker = description.worker
    for name, value in _texts(worker):
        if not value.isprintable():
            raise _refusal(worker, f"its {name} {value!r} is not printable")
    text = _encode(description)
    if len(text) > MOST_TEXT:
        tags = sum(len(tag.encode()) for tag in worker.tags)
        raise _refusal(
            worker,
            f"what there is to tell of it has {len(text)} bytes, {tags} of them for its "
            f"{len(worker.tags)} tags, and {MOST_TEXT} is the most: give it fewer or shorter tags",
        )
    strings = [text[start : start + _STRING] for start in range(0, len(text), _STRING)]
    number = number_of(worker.address)
    host = "" if number is not None else urlsplit(worker.address).hostname
    # A number is that of a host of our own; the machine has a program to answer for its name.
    return AsyncServiceInfo(
        TYPE,
        instance(worker.id),
        port=urlsplit(worker.address).port or 0,
        properties={"txtvers": _VERSION} | {f"json{n}": one for n, one in enumerate(strings)},
        server=f"{host.rstrip('.')}." if host else f"wool-{_label(worker.id)}.local.",
        parsed_addresses=[str(number)] if number is not None else [],
        host_ttl=round(description.lease),
        other_ttl=round(description.lease),
    )


def understood(properties: Mapping[bytes, bytes | None]) -> Description | None:
    """Returns what the properties of a service describe; None if it is no worker."""
    if properties.get(b"txtvers") != _VERSION.encode():
        return None
    strings = [properties.get(b"json%d" % number) for number in range(len(properties) - 1)]
    try:
        description = _decode(b"".join(string or b"" for string in strings))
        address = split(description.worker.address)
    except (ValueError, msgspec.MsgspecError):
        return None
    worker = description.worker
    number = number_of(worker.address)
    if number is not None and (number.is_unspecified or "%" in str(address.hostname)):
        return None  # nobody can dial it
    printable = all(value.isprintable() for _, value in _texts(worker))
    return description if worker.id and printable else None


def told(worker: WorkerInfo, *, only_here: bool) -> WorkerInfo:
    """Returns what others are told of a worker.

    Args:
        only_here: whether only this machine is told.

    Raises:
        ConfigurationError: others could not dial it; says why.
    """
    try:
        address = split(worker.address)
    except ValueError as error:
        raise _refusal(worker, str(error)) from None
    if not worker.id:
        raise _refusal(worker, "it has no id")
    number, host = number_of(worker.address), (address.hostname or "").rstrip(".")
    if number is None:
        is_local = host in ("", "localhost") or host.endswith(".localhost")
    else:
        is_local = number.is_loopback
    if number is not None and number.is_unspecified:
        reason = "it can be listened at, but not dialled"
    elif is_local and not only_here:
        reason = "other machines cannot reach it"
    elif number is not None and number.version == 6 and number.is_link_local:
        reason = "a link-local address means nothing without an interface, which differs elsewhere"
    else:
        return replace(worker, load=0)
    raise _refusal(
        worker,
        f"{reason}. Give it an address to advertise that others can dial, such as "
        f"{address.scheme.removesuffix('+unix')}://192.0.2.10:{address.port or 7000}",
    )


def split(address: str) -> SplitResult:
    """Takes an address apart.

    Raises:
        ValueError: it is none; says why.
    """
    try:
        parts = urlsplit(address)
        if not (parts.scheme and "://" in address) or parts.username or parts.query:
            raise ValueError("that is not of the form scheme://host:port/path")
        (parts.hostname or "localhost").encode("idna")  # checks lengths
        _ = parts.port
    except ValueError as error:  # from the standard library, too
        raise ValueError(f"{address!r} is not an address: {error}") from None
    return parts


def number_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Returns the host of an address as a number, without a zone; None if it is none.

    An IPv4 address in IPv6's clothes is given as IPv4.
    """
    try:
        number = ipaddress.ip_address((urlsplit(address).hostname or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(number, "ipv4_mapped", None) or number


def _label(ident: str) -> str:
    """Returns an id as a part of names, which are short and the same in upper and lower case."""
    if _LABEL.fullmatch(ident):
        return ident
    return hashlib.blake2b(ident.encode(errors="backslashreplace"), digest_size=16).hexdigest()


def _texts(worker: WorkerInfo) -> list[tuple[str, str]]:
    fields = ("id", "address", "host", "python", "version")
    texts = [(field, str(getattr(worker, field))) for field in fields]
    texts += [("tag", tag) for tag in worker.tags]
    return texts + [("serializer", name) for name in worker.serializers]


def _refusal(worker: WorkerInfo, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The worker at {worker.address} cannot be announced to the network: {reason}"
    )
