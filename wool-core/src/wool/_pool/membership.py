"""Membership: the workers that a discovery finds, as a pool may use them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from wool import abc
from wool._session.routes import is_socket
from wool._workerinfo import WorkerInfo

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds after which a discovery that has failed is asked again."""

Changed = Callable[[dict[str, WorkerInfo]], None]


class Membership:
    """Watches a discovery, and calls back with all workers that fit whenever there is news.

    Args:
        discovery: says who exists.
        tags: labels a worker must offer, as far as it is known what it offers.
        changed: called with the workers, by id or else by address.

    Attributes:
        failure: what the discovery failed with when it was last asked; None if it works.
    """

    def __init__(self, discovery: abc.Discovery, tags: frozenset[str], changed: Changed) -> None:
        self.failure: Exception | None = None
        self._discovery = discovery
        self._tags = tags
        self._changed = changed
        self._found: dict[str, WorkerInfo] = {}
        self._telling = False
        self._host = socket.gethostname()

    async def run(self) -> None:
        """Watches until cancelled; a discovery that fails is asked again, its news are kept."""
        delay = RETRY_FIRST
        while True:
            try:
                async with self._discovery.watch() as events:
                    async for event in events:
                        self._note(event)
                        self.failure, delay = None, RETRY_FIRST
            except Exception as error:
                self.failure = error
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    def _note(self, event: abc.Snapshot | abc.Joined | abc.Changed | abc.Left) -> None:
        if isinstance(event, abc.Snapshot):
            self._found = {key_of(info): info for info in event.workers}
        elif isinstance(event, abc.Left):
            self._found.pop(key_of(event.worker), None)
        else:
            self._found[key_of(event.worker)] = event.worker
        if not self._telling:  # thousands of events may come at once
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self._changed({key: info for key, info in self._found.items() if self._fits(info)})

    def _fits(self, info: WorkerInfo) -> bool:
        if is_socket(info.address) and info.host not in ("", self._host):
            return False  # on another machine, where its path means nothing
        return not info.id or self._tags <= info.tags


def key_of(info: WorkerInfo) -> str:
    """Returns what a worker is known by: its id or, where that is not known, its address."""
    return info.id or info.address
