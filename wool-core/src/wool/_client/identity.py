"""Facts that this process tells others of itself."""

from __future__ import annotations

import os
import platform
import sys

from wool._code.identity import IDENTITIES
from wool._protocol import frames as f
from wool._protocol.handshake import PROTOCOLS
from wool._protocol.transfer import CHUNK, WINDOW

VERSION = "0.1.0"
PYTHON = ".".join(platform.python_version_tuple()[:2])

PROGRAM = sys.argv[0] if sys.argv else ""
"""The script that this process runs."""


def hello(
    serializers: list[str], *, security: str, serializer: str = "", pool: str = ""
) -> f.Hello:
    """Returns what one side of a connection says of itself.

    Args:
        serializers: those that it knows.
        security: the kind of credentials that it has.
        serializer, pool: of a caller, what it uses, and for whom.
    """
    return f.Hello(
        protocols=list(PROTOCOLS),
        wool=VERSION,
        python=PYTHON,
        serializers=serializers,
        nonce=os.urandom(32),
        process=IDENTITIES.process,
        window=WINDOW,
        chunk=CHUNK,
        pool=pool,
        serializer=serializer,
        security=security,
    )
