"""Which transport an address is for."""

from __future__ import annotations

import re

from wool._plugins.loading import BUILT_IN, EXTRAS
from wool._plugins.lookup import TRANSPORT, Lookup, process
from wool.exceptions import ConfigurationError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(\+[A-Za-z0-9_.+-]*)?://")


def scheme_transport(address: str, here: Lookup | None = None) -> str:
    """Returns the name of the transport that an address is for; it need not be installed.

    That is the scheme without what follows a `+`. An `s` at its end means TLS, as in `wss`, unless
    there is a transport whose name ends so.

    Raises:
        ConfigurationError: the address has no scheme.
    """
    match = _SCHEME.match(address)
    if match is None:
        raise ConfigurationError(
            f"The address {address!r} does not say which transport it is for: write it as "
            f"transport://…, such as grpc://host:7000"
        )
    name = match[1].lower()
    plain = name.removesuffix("s")
    if name != plain:
        known = (here or process()).names_of(TRANSPORT)
        known |= {own for own, word in {**BUILT_IN, **EXTRAS}.items() if word == TRANSPORT.word}
        if name not in known and plain in known:
            return plain
    return name
