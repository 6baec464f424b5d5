"""How many workers a pool keeps whose size may vary: as many as its calls can make use of.

Nobody plans ahead. Ten times a second the pool asks its workers how much they have to do. Calls
that wait call for more workers; what was needed at most in the last `idle` seconds is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil

from wool._client.link import Link
from wool._protocol.frames import Usage

LOOK = 0.1
"""Seconds between two looks at the workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The demand for workers at one moment.

    Attributes:
        busy: how many have a call, or something that others use.
        waiting: how many calls there are that no worker has begun.
        unplaced: how many of those no worker has received.
        awaited: how many workers somebody waits for.
    """

    busy: int = 0
    waiting: int = 0
    unplaced: int = 0
    awaited: int = 0


class Sizing:
    """Says how many workers there should be.

    A call that waits needs a place in a worker. Without a limit on what a worker runs at once there
    is always one, so calls wait only where workers are blocked: twice as many should help.

    Args:
        least, most: workers that there always are, and that there may be.
        idle: seconds for which workers are kept that are not needed.
        concurrency: how many calls a worker runs at once; None: no limit.
    """

    def __init__(self, least: int, most: int, idle: float, concurrency: int | None) -> None:
        self._least, self._most = least, most
        self._idle = idle
        self._concurrency = concurrency
        self._before = 0  # what was needed at the last look
        self._peaks: deque[tuple[float, int]] = deque()  # when, and how many; falling

    def size(self, now: float, demand: Demand) -> int:
        """Returns how many workers there should be from now on.

        Args:
            now: the time in seconds, by any clock.
            demand: what is asked of those there are.
        """
        if self._concurrency is None:
            more = min(demand.waiting, max(demand.busy, 1))
        else:
            more = ceil(demand.waiting / self._concurrency)
        # Calls that are about to begin wait as well, but not for long.
        needed, self._before = min(demand.busy + more, self._before), demand.busy + more
        needed = max(needed, demand.busy, demand.awaited, min(demand.unplaced, 1))
        while self._peaks and self._peaks[-1][1] <= needed:
            self._peaks.pop()
        self._peaks.append((now, needed))
        while self._peaks[0][0] < now - self._idle:
            self._peaks.popleft()
        return max(self._least, min(self._peaks[0][1], self._most))


class Scaler:
    """Looks at the workers of a group, and says which of them nobody needs.

    Args:
        sizing: says how many there should be.
        concurrency: how many calls a worker runs at once; None: no limit.
    """

    def __init__(self, sizing: Sizing, concurrency: int | None) -> None:
        self._sizing = sizing
        self._room = concurrency or 1
        self._ended: dict[str, int] = {}  # how many calls have, by worker

    def look(
        self, now: float, links: Collection[Link], own: Collection[str], demand: Demand
    ) -> tuple[int, list[str]]:
        """Returns how many workers there should be from now on, and the ids of those to leave.

        Args:
            now: the time in seconds, by any clock.
            links: to them, and to others that calls may wait for.
            own: their ids, in the order in which they have come.
            demand: what is known without asking them.
        """
        usages = {link.info.id: self._usage(link) for link in links}
        ended = {key: usages[key].ended for key in own if key in usages}
        busy = sum(usages[key].busy for key in ended)
        if any(number != self._ended.get(key, 0) for key, number in ended.items()):
            busy = max(busy, 1)
        self._ended = ended
        waiting = demand.unplaced + sum(usage.pending for usage in usages.values())
        size = self._sizing.size(now, replace(demand, busy=busy, waiting=waiting))
        idle = [key for key in ended if not usages[key].busy]
        return size, idle[-(len(own) - size) :] if len(own) > size else []

    def _usage(self, link: Link) -> Usage:
        """Returns what a worker has said, or what its calls suggest: C code may keep it silent."""
        if link.peer is not None and link.peer.usage is not None:
            return link.peer.usage
        pending = 0 if link.idle else max(0, link.load - self._room)
        return Usage(pending, link.needed, self._ended.get(link.info.id, 0))
