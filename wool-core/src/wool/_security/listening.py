"""Where a worker may listen, and with what."""

from __future__ import annotations

import warnings

from wool._addresses import is_loopback
from wool._security.credentials import REMEDY, Authenticator, Insecure
from wool.exceptions import ConfigurationError


def network_credentials(
    address: str | None, credentials: Authenticator | None, *, insecure: bool
) -> Authenticator:
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
