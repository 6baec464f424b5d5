"""Knows which workers there are: by what they tell, and by whether they still answer."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zeroconf import RecordUpdate, RecordUpdateListener, Zeroconf
from zeroconf.asyncio import AsyncZeroconf

from wool.abc import WorkerInfo
from wool_zeroconf import Options, _addresses, _library, _service, _text
from wool_zeroconf._library import PTR, TXT, TYPE
from wool_zeroconf._watch import Watch

COLLECTING = 0.15
"""Seconds that answers to the first question are waited for. They come within milliseconds, unless
a firewall lets through only what is sent to port 5353; then it takes them up to 0.12 s."""

LOOKS = 5
"""Parts of these seconds: a process that is stopped for a while loses one, and not all of them."""

SECOND = 1.0
"""Seconds for which questions that are alike are ignored."""

PATIENCE = 1.5
"""Seconds that an answer may take: workers tell nothing twice within a second."""

QUESTIONS = 3
"""A worker that leaves so many in a row unanswered is gone."""

BATCH = 100
"""Workers that are asked at once; were all of them, their answers would overrun the receivers."""

BACKLOG = 10_000
"""Packets that are read before somebody is taken for gone; so many do not fit into a socket."""

SKIPS = 4
"""Turns in a row in which nothing may be asked, because all that are known were heard anyway."""

GHOSTS = 10.0
"""Seconds for which late copies of the records of a worker that has left are ignored."""

MOST = 10_000
"""Workers that are kept: strangers can invent any number."""


@dataclass(slots=True)
class Known:
    """A worker that is there."""

    worker: WorkerInfo
    revision: int
    heard: float


@dataclass(slots=True, frozen=True)
class Gone:
    """A worker that has said goodbye."""

    revision: int
    time: float


class Browser(RecordUpdateListener):
    """Watches the workers of a namespace, from the first watch to the last.

    In turns, it asks whether there are others than those it knows, and asks these whether they are
    still there, unless they have been heard. Answers go to everybody; so if others ask as well, it
    may keep silent.

    Args:
        library: where everything is heard.
        scout: opens a second one, with a port of its own.

    Attributes:
        ready: whether those who are there have had the time to say so.
        ended: whether it watches no more.
    """

    def __init__(
        self, options: Options, library: AsyncZeroconf, scout: Callable[[], AsyncZeroconf]
    ) -> None:
        self.ready = False
        self.ended = False
        self._options = options
        self._library = library.zeroconf
        self._scout = scout
        self._loop = asyncio.get_running_loop()
        self._watches: set[Watch] = set()
        self._known: dict[str, Known] = {}
        self._gone: dict[str, Gone] = {}
        self._others: set[str] = set()
        self._told: list[tuple[Zeroconf, Any]] = []
        self._browsing = asyncio.create_task(self._browse())

    def workers(self) -> dict[str, WorkerInfo]:
        """Returns the workers there are, by the names of their records."""
        return {name: known.worker for name, known in self._known.items()}

    def worker(self, name: str) -> WorkerInfo | None:
        """Returns a worker by the name of its record; None if it is not there."""
        known = self._known.get(name)
        return known.worker if known else None

    def add(self, watch: Watch) -> None:
        """Tells a watch from now on when something changes."""
        self._watches.add(watch)

    async def remove(self, watch: Watch) -> None:
        """Tells a watch no more. With the last one, it ends."""
        self._watches.discard(watch)
        if not self._watches:
            self.ended = True
            self._browsing.cancel()
            await asyncio.wait([self._browsing])

    # What is heard --------------------------------------------------------------------------

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Takes note of what a packet says; the library calls it before it has stored that."""
        found: list[Any] = [record.new for record in records]
        if zc is not self._library:  # it notices the goodbyes only of those that it has stored
            self._library.cache.async_add_records(found)
        for record in found:
            if record.type in (PTR, TXT) and (record.ttl == 0 or not record.is_expired(now)):
                self._told.append((zc, record))

    def async_update_records_complete(self) -> None:
        """Understands what a packet said; the library calls it after it has stored that."""
        told, self._told = self._told, []
        for zeroconf, record in told:
            if record.type == TXT and record.ttl:
                self._understand(zeroconf, record.key, record.text)
            elif record.type == TXT:
                self._part(record.key)
            elif record.key == TYPE and record.ttl:
                self._hear(record.alias.lower())
            elif record.key == TYPE:
                self._part(record.alias.lower())

    def _understand(self, zeroconf: Zeroconf, name: str, text: bytes) -> None:
        """Takes in what a worker tells of itself; what is not from a worker is ignored."""
        description = _text.decode(text)
        if description is None or (
            description.namespace != self._options.namespace
            or name != _service.instance(description.worker.id)
        ):
            self._ignore(name)
            return
        self._hear(name)
        before = self._known.get(name) or self._gone.get(name)
        if before is not None and description.revision <= before.revision:
            return
        worker = _dialable(description.worker, zeroconf)
        if worker is None or (name not in self._known and len(self._known) >= MOST):
            return
        self._known[name] = Known(worker, description.revision, self._loop.time())
        self._tell(name)

    def _hear(self, name: str) -> None:
        if (known := self._known.get(name)) is not None:
            known.heard = self._loop.time()

    def _ignore(self, name: str) -> None:
        """Spares somebody who is none of our workers the question whether there are others."""
        if len(self._others) >= MOST:
            self._others.clear()
        self._others.add(name)

    def _part(self, name: str) -> None:
        """A worker says goodbye."""
        if (known := self._known.pop(name, None)) is not None:
            self._gone[name] = Gone(known.revision, self._loop.time())
            self._tell(name)

    def _tell(self, name: str) -> None:
        for watch in self._watches:
            watch.touch(name)

    # What is asked --------------------------------------------------------------------------

    async def _browse(self) -> None:
        self._library.async_add_listener(self, None)
        try:
            await self._collect()
            await self._find()
            while True:
                since = await self._rest()
                await self._find()
                await self._probe(since)
        except Exception as error:
            self.ended = True
            for watch in self._watches:
                watch.fail(error)
        finally:
            self._library.async_remove_listener(self)

    async def _collect(self) -> None:
        """Asks for the first time."""
        scout = self._scout()
        try:
            await scout.zeroconf.async_wait_for_start()
            scout.zeroconf.async_add_listener(self, None)
            _library.ask_all(scout.zeroconf)
            for _ in range(LOOKS):
                await asyncio.sleep(COLLECTING / LOOKS)
        finally:
            await asyncio.shield(scout.async_close())
        self.ready = True
        for watch in self._watches:
            watch.wake()
        await asyncio.sleep(SECOND)

    async def _find(self) -> None:
        """Asks who else is there, until nobody comes forward: a crowd is not heard all at once."""
        known = -1
        while known < len(self._known):
            known = len(self._known)
            _library.ask_others(self._library, [*self._known, *self._others])
            await self._wait()

    async def _probe(self, since: float) -> None:
        """Asks those that have not been heard; forgets those that do not answer."""
        now = self._loop.time()
        self._gone = {name: gone for name, gone in self._gone.items() if gone.time > now - GHOSTS}
        for _ in range(QUESTIONS):
            silent = self._silent(since)
            if not silent:
                return
            for start in range(0, len(silent), BATCH):
                _library.ask_each(self._library, silent[start : start + BATCH])
                await asyncio.sleep(0.1)
            await self._wait()
        for name in self._silent(since):
            del self._known[name]
            self._tell(name)

    async def _rest(self) -> float:
        """Waits until it is time to ask again; returns since when somebody has been silent."""
        since = self._loop.time()
        for _ in range(1 + SKIPS):
            since = self._loop.time()
            await asyncio.sleep(self._options.interval * random.uniform(0.75, 1.25))  # noqa: S311
            if not self._known or self._silent(since):
                break
        return since

    async def _wait(self) -> None:
        """Waits for answers, and lets those be read that have arrived.

        A loop that was blocked has them still before it when the time is up, and reads one packet
        in each of its turns.
        """
        await asyncio.sleep(PATIENCE)
        for _ in range(BACKLOG):
            if not _library.unread(self._library):
                break
            await asyncio.sleep(0)

    def _silent(self, since: float) -> list[str]:
        return [name for name, known in self._known.items() if known.heard < since]


def _dialable(worker: WorkerInfo, zeroconf: Zeroconf) -> WorkerInfo | None:
    """Returns a worker with its address as this machine can dial it; None if it cannot."""
    address = _addresses.parse(worker.address)
    if not address.is_link_local:
        return worker
    scopes = _library.scopes(zeroconf, _service.server(worker.id))
    if not scopes:
        return None
    try:
        zone = socket.if_indextoname(scopes[0])
    except OSError:
        zone = str(scopes[0])
    return replace(worker, address=str(address.within(zone)))
