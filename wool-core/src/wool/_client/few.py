"""Which of many workers a client keeps connections to.

Rendezvous hashing (Thaler and Ravishankar, 1998): each client ranks all workers by a hash of its
own name and theirs, and takes the first few. Clients rank differently, so the load spreads; a
worker that comes or goes changes only the choice of those who rank it among their first.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Mapping
from typing import TypeVar

V = TypeVar("V")

MANY = 32
"""Connections one client keeps to workers that it shares with others."""


def choose_few(
    members: Mapping[str, V], client: bytes, own: Collection[str], limit: int = MANY
) -> dict[str, V]:
    """Returns the members that a client keeps connections to.

    Args:
        members: all there are, by their keys.
        client: names the client.
        own: keys of those that work for this client's pool alone; all of them are chosen.
        limit: how many of the others to choose.
    """
    if len(members) <= limit + len(own):
        return dict(members)
    others = (key for key in members if key not in own)
    first = heapq.nsmallest(limit, others, key=lambda key: _rank(client, key))
    return {key: members[key] for key in (*own, *first) if key in members}


def _rank(client: bytes, key: str) -> bytes:
    return hashlib.blake2b(key.encode(), key=client, digest_size=8).digest()
