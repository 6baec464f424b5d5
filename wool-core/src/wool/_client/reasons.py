"""Why workers cannot be called, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wool._client.link import Link
from wool._client.probing import without_address

FEW_NAMED = 3
"""Of workers with one trouble, so many are named."""


def reason_against(link: Link, tags: frozenset[str]) -> str | None:
    """Returns why a call with these tags cannot be given to a worker; None if it can."""
    if link.failure is not None:
        return without_address(link.failure, link.info.address)
    lacking = tags - link.info.tags if link.info.id else None
    if lacking:
        return f"does not offer the tags {', '.join(sorted(lacking))}"
    if link.met:
        return None
    return "has not answered yet" if link.trying else "there is no connection yet"


def in_words(reasons: Mapping[str, Sequence[str]]) -> str:
    """Says of each reason which workers it holds for, given the addresses of these."""
    return "; ".join(f"{_some(places)}: {reason}" for reason, places in sorted(reasons.items()))


def _some(places: Sequence[str]) -> str:
    """Names a few of many."""
    if len(places) <= FEW_NAMED:
        return ", ".join(places)
    return f"{', '.join(places[:FEW_NAMED])} and {len(places) - FEW_NAMED} more"
