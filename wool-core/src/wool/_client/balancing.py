"""The spread of calls over the workers: to which of them a client keeps links, its subset, and
which of those gets a call.

The subset is chosen by rendezvous hashing (Thaler and Ravishankar, 1998): each client ranks all
workers by a hash of its own name and theirs, and takes the first few. Clients rank differently, so
the load spreads; a worker that comes or goes changes only the choice of those who rank it among
their first. A client that has more to do than those few can begin takes more, in the same order.

A call goes to the least loaded of the links. With many of them, it goes to that of two random ones
(Mitzenmacher, 2001): the load that is known is a little old, and the one that seems best to all
callers would get everything.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from wool._workerinfo import WorkerInfo

MANY = 32
"""Links one client keeps to workers it shares with others, and again for each set of tags."""

MOST = 256
"""As many it keeps while its calls are more than those workers can begin."""

MOST_SPARE = 96
"""Links it keeps in addition, at most, in place of those to workers that cannot be reached."""

FEW = 8
"""Up to so many workers the least loaded of all is chosen; beyond, of two random ones."""

GUESSES = 8
"""Times that one of many is picked at random, before all of them are looked at."""

NO_TAGS: frozenset[str] = frozenset()

FREE = (False, 0, False)
"""The burden of a worker that is idle and connected, and has nothing to do: none is less."""


class Subset:
    """The choice of one client.

    Args:
        client: names the client.

    Attributes:
        width: how many links it keeps now.
    """

    def __init__(self, client: bytes) -> None:
        self.width = MANY
        self._client = client
        self._asked: set[frozenset[str]] = set()
        self._members: Mapping[str, WorkerInfo] = {}
        self._pinned: Collection[str] = ()
        self._ranks: dict[str, bytes] = {}
        self._orders: dict[frozenset[str], list[str]] = {}

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
            known = self._ranks
            self._ranks = {key: known.get(key) or self._rank(key) for key in members}
        limit = self.width + min(failing, MOST_SPARE)
        keys = [*pinned, *self._order(NO_TAGS)[:limit]]
        if len(keys) < len(members):
            for tags in self._asked:
                keys += self._order(tags)[:limit]
        return {key: members[key] for key in keys if key in members}

    def _rank(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), key=self._client, digest_size=8).digest()

    def _order(self, tags: frozenset[str]) -> list[str]:
        """Returns members in the order in which the client prefers them.

        With tags these are the ones that offer them, and those of which nothing is known; without,
        all but the pinned ones.
        """
        order = self._orders.get(tags)
        if order is None:
            members = self._members
            keys = members.keys() - {*self._pinned}
            if tags:
                keys = {k for k, info in members.items() if not info.id or tags <= info.tags}
            order = self._orders[tags] = sorted(keys, key=self._ranks.__getitem__)
        return order


class Candidate(Protocol):
    """A worker that could get a call, as a `Link` knows it."""

    info: WorkerInfo

    @property
    def usable(self) -> bool:
        """Whether it may get calls at all."""
        ...

    @property
    def idle(self) -> bool:
        """Whether it could begin a call at once."""
        ...

    @property
    def load(self) -> int:
        """Calls waiting or running there."""
        ...

    @property
    def session(self) -> object | None:
        """The connection to it; None if it would have to be opened."""
        ...


C = TypeVar("C", bound=Candidate)


def least_loaded(candidates: Collection[C], tags: frozenset[str] = NO_TAGS) -> C | None:
    """Returns the one to give a call to; None if none is usable and offers the tags."""
    if len(candidates) > FEW:
        candidates = _some_of(list(candidates), tags)
    best, least = None, None
    for one in candidates:
        if one.usable and (not tags or tags <= one.info.tags):
            burden = not one.idle, one.load, one.session is None
            if burden == FREE:
                return one
            if least is None or burden < least:
                best, least = one, burden
    return best


def _some_of(many: Sequence[C], tags: frozenset[str]) -> Sequence[C]:
    """Returns two random ones that fit, connected and idle if there are such; all if few fit."""
    found: C | None = None
    for _ in range(GUESSES):
        one = many[int(random.random() * len(many))]  # noqa: S311
        if one.idle and one.usable and one.session is not None and tags <= one.info.tags:
            if found is not None and found is not one:
                return one, found
            found = one
    fitting = [one for one in many if one.usable and (not tags or tags <= one.info.tags)]
    if len(fitting) <= FEW:
        return fitting
    ready = [one for one in fitting if one.idle and one.session is not None]
    return random.sample(ready if len(ready) > 1 else fitting, 2)
