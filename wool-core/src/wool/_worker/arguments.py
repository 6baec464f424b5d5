"""Checks of what both `Worker` and `WorkerPool` are told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from wool._security.credentials import Authenticator
from wool.exceptions import ConfigurationError

T = TypeVar("T")

MOST_LABELS = 2048
"""Bytes that all tags of a worker may have: it names them in the last message of the handshake, and
a discovery in its announcement, neither of which is large."""


def several(name: str, what: str, given: Any) -> list[Any]:
    """Returns the items of an argument that has several.

    Raises:
        ConfigurationError: it has none, or is one item by itself.
    """
    if isinstance(given, (str, bytes)):
        raise ConfigurationError(f"{name} must be several {what}, not the string {given!r}")
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} must be several {what}, not {given!r}")
    return list(given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def labels(given: Any) -> frozenset[str]:
    """Returns tags, or raises ConfigurationError for what can be none, and for too many."""
    tags = several("tags", "labels", given)
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise ConfigurationError(f"tags must be several labels, and {tag!r} is none")
    size = sum(len(tag.encode(errors="surrogatepass")) for tag in tags)
    if size > MOST_LABELS:
        raise ConfigurationError(
            f"the tags have {size} bytes, and {MOST_LABELS} is the most: give fewer or shorter ones"
        )
    return frozenset(tags)


def positive(name: str, value: Any) -> int | None:
    """Returns a positive number or None, or raises ConfigurationError that names the argument."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{name} must be a positive whole number, not {value!r}")
    return value


def instance(name: str, given: T, kind: type[T], words: str) -> T:
    """Returns an argument that is None or of the right type, or raises ConfigurationError."""
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(f"{name} must be {words}, not {given!r}")
    return given


def checked_credentials(credentials: Any) -> Authenticator | None:
    """Returns credentials, or raises ConfigurationError for anything else."""
    if credentials is not None and not isinstance(credentials, Authenticator):
        raise ConfigurationError(
            "credentials must be made with wool.Credentials.token(…) or wool.Credentials.tls(…), "
            f"not {type(credentials).__name__}"
        )
    return credentials
