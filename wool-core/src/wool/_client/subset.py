"""Which of many workers a client keeps links to: its subset.

Rendezvous hashing (Thaler and Ravishankar, 1998): each client ranks all workers by a hash of its
own name and theirs, and takes the first few. Clients rank differently, so the load spreads; a
worker that comes or goes changes only the choice of those who rank it among their first. A client
that has more to do than those few can begin takes more, in the same order.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping

from wool._workerinfo import WorkerInfo

MANY = 32
"""Links one client keeps to workers it shares with others, and again for each set of tags."""

MOST = 256
"""As many it keeps while its calls are more than those workers can begin."""

MOST_SPARE = 96
"""Links it keeps in addition, at most, in place of those to workers that cannot be reached."""


class Ranks(dict[str, bytes]):
    """The rank of each worker, by its key, for one client."""

    def __init__(self, client: bytes) -> None:
        self._client = client

    def __missing__(self, key: str) -> bytes:
        rank = hashlib.blake2b(key.encode(), key=self._client, digest_size=8).digest()
        self[key] = rank
        return rank


class Order:
    """Members in the order in which a client prefers them, as far as somebody has asked.

    Args:
        keys: the members, by their keys.
        ranks: of the client.
    """

    def __init__(self, keys: Iterable[str], ranks: Ranks) -> None:
        self._keys = list(keys)
        self._ranks = ranks
        self._first: list[str] = []

    def first(self, limit: int) -> list[str]:
        """Returns those that it prefers to all others."""
        if len(self._first) < min(limit, len(self._keys)):
            most = max(limit, 2 * len(self._first))
            self._first = heapq.nsmallest(most, self._keys, key=self._ranks.__getitem__)
        return self._first[:limit]


class Subset:
    """The choice of one client.

    Args:
        client: names the client.

    Attributes:
        width: how many links it keeps now.
    """

    def __init__(self, client: bytes) -> None:
        self.width = MANY
        self._ranks = Ranks(client)
        self._asked: set[frozenset[str]] = set()
        self._members: Mapping[str, WorkerInfo] = {}
        self._pinned: Collection[str] = ()
        self._orders: dict[frozenset[str], Order] = {}

    @property
    def can_widen(self) -> bool:
        """Whether there may be more."""
        return self.width < MOST

    def widen(self) -> None:
        """Keeps more links from the next choice on: there is too much to do for those there are."""
        self.width = min(2 * self.width, MOST)

    def narrow(self, calls: int) -> bool:
        """Keeps fewer links again if there are few calls; returns whether that is so."""
        if self.width == MANY or calls > self.width // 4:
            return False
        self.width = max(self.width // 2, MANY)
        return True

    def ask(self, tags: frozenset[str]) -> bool:
        """Takes note that calls ask for tags; returns whether that is new."""
        new = tags not in self._asked
        self._asked.add(tags)
        return new

    def choose(
        self, members: Mapping[str, WorkerInfo], pinned: Collection[str], failing: int = 0
    ) -> dict[str, WorkerInfo]:
        """Returns some members, and for each set of tags asked for, some of those that offer them.

        Args:
            members: all there are, by their keys; replaced as a whole, never changed.
            pinned: keys of those that are always among them; likewise.
            failing: how many of those chosen before cannot be reached; others stand in for them.
        """
        if members is not self._members or pinned is not self._pinned:
            self._members, self._pinned, self._orders = members, pinned, {}
            if len(self._ranks) > 2 * len(members) + MANY:
                self._ranks.clear()
        limit = self.width + min(failing, MOST_SPARE)
        keys = [*pinned, *self._order(frozenset()).first(limit)]
        if len(keys) < len(members):
            for tags in self._asked:
                keys += self._order(tags).first(limit)
        return {key: members[key] for key in keys if key in members}

    def _order(self, tags: frozenset[str]) -> Order:
        """Returns the order of those that offer tags; without tags, of all but the pinned ones."""
        order = self._orders.get(tags)
        if order is None:
            keys = (
                _offering(self._members, tags) if tags else self._members.keys() - {*self._pinned}
            )
            order = self._orders[tags] = Order(keys, self._ranks)
        return order


def _offering(members: Mapping[str, WorkerInfo], tags: frozenset[str]) -> Iterable[str]:
    """Yields members that offer tags, and those of which it is not known what they offer."""
    return (key for key, info in members.items() if not info.id or tags <= info.tags)
