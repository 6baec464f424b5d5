"""What a worker tells of itself: the strings of its TXT record.

Each string is `key=value`, and 255 bytes at most. Each tag and each serializer has one to itself,
`tag0`, `tag1` and so on, so no separator is needed. The load is left out: it changes all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from wool.abc import ConfigurationError, WorkerInfo
from wool_zeroconf import _addresses

MOST_STRING = 255
"""Bytes of one string; its length is told in one byte."""

MOST_TEXT = 1200
"""Bytes of all strings. With the other records of a worker they then fit into a packet that every
network carries whole."""

_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A worker as its TXT record describes it.

    Attributes:
        worker: without its load.
        namespace: only callers of the same namespace are to see it.
        revision: the greater, the newer. Late copies of old records are told by it.
    """

    worker: WorkerInfo
    namespace: str
    revision: int


def encode(description: Description) -> bytes:
    """Returns the contents of the TXT record.

    Raises:
        ConfigurationError: that would be too long for multicast DNS; says what is.
    """
    strings: list[bytes] = []
    for key, value in _pairs(description):
        if not value.isprintable():
            raise _refusal(description.worker, f"{_words(key)} {value!r} is not printable")
        string = f"{key}={value}".encode()
        if len(string) > MOST_STRING:
            most = MOST_STRING - len(key) - 1
            size = len(string) - len(key) - 1
            raise _refusal(
                description.worker,
                f"{_words(key)} {value[:40]!r}… has {size} bytes, and {most} is the most",
            )
        strings.append(bytes([len(string)]) + string)
    text = b"".join(strings)
    if len(text) > MOST_TEXT:
        tags = sum(len(string) for string in strings if string[1:].startswith(b"tag"))
        raise _refusal(
            description.worker,
            f"what there is to tell of it has {len(text)} bytes, {tags} of them for its "
            f"{len(description.worker.tags)} tags, and {MOST_TEXT} is the most: give it fewer or "
            f"shorter tags",
        )
    return text


def decode(text: bytes) -> Description | None:
    """Returns what a TXT record describes; None if it is not one that `encode` has made."""
    try:
        told = dict(_strings(text))
        if told.pop("txtvers", "") != _VERSION:
            return None
        address = _addresses.parse(told["address"])
        worker = WorkerInfo(
            id=told["id"],
            address=told["address"],
            tags=frozenset(_listed("tag", told)),
            host=told["host"],
            pid=_number(told["pid"]),
            python=told["python"],
            version=told["wool"],
            serializers=tuple(_listed("ser", told)),
        )
        description = Description(
            worker=worker, namespace=told["ns"], revision=_number(told["rev"])
        )
    except (KeyError, ValueError):
        return None
    if not worker.id or address.zone or address.is_wildcard:
        return None
    return description


def announced(worker: WorkerInfo) -> WorkerInfo:
    """Returns what others are told of a worker: no load, and no interface of this machine."""
    address = _addresses.parse(worker.address)
    text = str(address.within("")) if address.zone else worker.address
    return replace(worker, load=0, address=text)


def _pairs(description: Description) -> Iterator[tuple[str, str]]:
    worker = description.worker
    yield "txtvers", _VERSION  # comes first, says RFC 6763
    yield "ns", description.namespace
    yield "id", worker.id
    yield "rev", str(description.revision)
    yield "address", worker.address
    yield "host", worker.host
    yield "pid", str(worker.pid)
    yield "python", worker.python
    yield "wool", worker.version
    for number, serializer in enumerate(worker.serializers):
        yield f"ser{number}", serializer
    for number, tag in enumerate(sorted(worker.tags)):
        yield f"tag{number}", tag


def _strings(text: bytes) -> Iterator[tuple[str, str]]:
    """Takes a TXT record apart; raises `ValueError` if it is none, or not of text."""
    rest = text
    while rest:
        end = 1 + rest[0]
        if end > len(rest):
            raise ValueError("cut off")
        key, _, value = rest[1:end].decode().partition("=")
        if not value.isprintable():
            raise ValueError(value)
        yield key.lower(), value
        rest = rest[end:]


def _listed(key: str, told: dict[str, str]) -> Iterable[str]:
    number = 0
    while (value := told.get(f"{key}{number}")) is not None:
        yield value
        number += 1


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise ValueError(text)
    return int(text)


def _words(key: str) -> str:
    name = key.rstrip("0123456789")
    return {
        "address": "its address",
        "host": "the name of its host",
        "id": "its id",
        "ser": "its serializer",
        "tag": "its tag",
    }.get(name, name)


def _refusal(worker: WorkerInfo, reason: str) -> ConfigurationError:
    return ConfigurationError(f"The worker at {worker.address} cannot be announced: {reason}.")
