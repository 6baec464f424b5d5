"""Tokens: the shared secret of a cluster.

A token is `wool_` and, in base64 for URLs, 32 random bytes with their CRC-32. So a phrase or a
password is no token, however long it is, and one that was copied in part is told from a wrong one.
Nothing has to be derived from it slowly: what can be heard of a proof is of no use to somebody who
would have to guess 256 random bits.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib

from wool.exceptions import ConfigurationError

PREFIX = "wool_"
RANDOM_BYTES, SUM_BYTES = 32, 4
LENGTH = len(PREFIX) + (RANDOM_BYTES + SUM_BYTES) * 4 // 3


def generate() -> str:
    """Returns a new token of 256 random bits."""
    random = secrets.token_bytes(RANDOM_BYTES)
    return PREFIX + base64.urlsafe_b64encode(random + _sum(random)).decode()


def _sum(random: bytes) -> bytes:
    return zlib.crc32(random).to_bytes(SUM_BYTES, "big")


def check(token: str, origin: str) -> str:
    """Returns `token` without surrounding white space.

    Raises:
        ConfigurationError: `generate` has not made it; the message does not tell it.
    """
    token = token.strip()
    if not token:
        raise _bad(origin, "is empty")
    if not token.startswith(PREFIX):
        raise _bad(origin, "is none that `wool token` has made, and others may be guessed")
    try:
        data = base64.b64decode(token[len(PREFIX) :], altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    random, found = data[:RANDOM_BYTES], data[RANDOM_BYTES:]
    if len(token) != LENGTH or found != _sum(random):
        raise _bad(origin, "was not copied as `wool token` has printed it")
    return token


def _bad(origin: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the token from {origin} {what}: `wool token` prints a good one, and so does "
        "wool.Credentials.new_token() in Python"
    )


def read(path: str, origin: str) -> str:
    """Returns the token that a file holds.

    Raises:
        ConfigurationError: it cannot be read, or holds no token.
    """
    try:
        with open(path, encoding="ascii") as file:
            return check(file.read(), f"{origin} ({path})")
    except OSError as error:
        raise ConfigurationError(f"{origin}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{origin}: {path} holds no token, but other bytes") from None
