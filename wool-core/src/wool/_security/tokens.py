"""Tokens: the shared secret of a cluster."""

from __future__ import annotations

import math
import re
import secrets
import string
from pathlib import Path

from wool.exceptions import ConfigurationError

BITS = 128
"""What a token must carry at least, so that trying them all is out of the question."""

_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_HEX = frozenset(string.hexdigits)
_BETWEEN = re.compile(r"[\W_]+")
_WORD = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{3,}")


def generate() -> str:
    """Returns a new token of 256 random bits."""
    return secrets.token_urlsafe(32)


def check(token: str, origin: str) -> str:
    """Returns `token` without surrounding white space.

    Raises:
        ConfigurationError: it may carry less than `BITS`; the message does not tell it.
    """
    token = token.strip()
    if not _is_text(token):
        raise ConfigurationError(
            f"the token from {origin} holds bytes that are no text: `wool token` prints a good one"
        )
    if not token:
        raise ConfigurationError(
            f"the token from {origin} is empty: `wool token` prints a good one"
        )
    if strength(token) < BITS:
        raise ConfigurationError(
            f"the token from {origin} is too weak: it needs at least {BITS} random bits, such as "
            "32 random hexadecimal digits. `wool token` prints a good one"
        )
    return token


def _is_text(token: str) -> bool:
    """Whether it can be encoded; what is no text in the environment is kept as surrogates."""
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def read(path: Path, origin: str) -> str:
    """Returns the token that a file holds.

    Raises:
        ConfigurationError: it cannot be read, or the token is weak.
    """
    try:
        return check(path.read_text(encoding="ascii"), f"{origin} ({path})")
    except OSError as error:
        raise ConfigurationError(f"{origin}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{origin}: {path} holds no token, but other bytes") from None


def strength(token: str) -> float:
    """Estimates, rather too low, how many random bits a text carries.

    Characters count by the alphabet they seem to be drawn from. A text of few different ones
    counts nothing, and one of small letters only, or most of which is words with something
    between them, as little as written language does.
    """
    kinds = [any(c in kind for c in token) for kind in _CLASSES]
    if len(set(token)) < 8:
        return 0.0
    if set(token) <= _HEX and kinds[2] and sum(kinds) > 1:
        return 4.0 * len(token)
    if (sum(kinds) < 2 and not kinds[2]) or _is_phrase(token):
        return 1.5 * len(token)
    size = sum(len(kind) for kind, used in zip(_CLASSES, kinds, strict=True) if used)
    return math.log2(size) * len(token)


def _is_phrase(token: str) -> bool:
    parts = _BETWEEN.split(token)
    words = [part for part in parts if _WORD.fullmatch(part)]
    return len(words) > 2 and sum(map(len, words)) > sum(map(len, parts)) / 2
