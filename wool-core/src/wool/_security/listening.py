"""Where a worker may listen, and with what."""

from __future__ import annotations

import ipaddress
import warnings
from urllib.parse import urlsplit

from wool._security.credentials import REMEDY, Insecure, Key
from wool.exceptions import ConfigurationError


def network_credentials(address: str | None, credentials: Key | None, *, insecure: bool) -> Key:
    """Returns what a worker at a network address lets callers in with.

    Args:
        address: where it is to listen; None is the loopback interface.
        insecure: whether it may do without credentials.

    Raises:
        ConfigurationError: it has no credentials and may not, or not there, do without.
    """
    place = address or "the loopback interface"
    if credentials is not None:
        if insecure:
            raise ConfigurationError("insecure=True along with credentials: leave one of them out")
        return credentials
    if not insecure:
        raise ConfigurationError(
            f"a worker at {place} could be reached by others, so it takes credentials: {REMEDY}"
        )
    if address is not None and not is_loopback(address):
        raise ConfigurationError(
            f"insecure=True is for the loopback interface only, and {place} can be reached from "
            f"other machines: {REMEDY}"
        )
    warnings.warn(
        f"a worker without authentication listens at {place}: every user and program of this "
        "machine can run code as you",
        RuntimeWarning,
        stacklevel=4,  # past `Worker`
    )
    return Insecure()


def is_loopback(address: str) -> bool:
    """Whether an address `scheme://host:port` is on the loopback interface for certain."""
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """Returns the host in an address; nothing if there is none, or the address is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # the transport says what is wrong with it
        return ""
