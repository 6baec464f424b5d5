"""The workers of a namespace, by what they tell of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from zeroconf import DNSQuestionType, Error, ServiceListener, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo
from wool_zeroconf import _description
from wool_zeroconf._description import TYPE

COLLECTING = 0.3
"""Seconds that answers to the first question are waited for. The library asks after up to 0.12 s,
and answers come within milliseconds, unless a firewall lets through only what is sent to port 5353;
then it takes them up to 0.12 s."""

TICK = 1.0
"""Seconds between two looks at who has fallen silent."""

GHOSTS = 10
"""Ticks for which late copies of the records of a worker that has left are ignored."""

MOST = 10_000
"""Workers that are kept: strangers can invent any number."""


async def browse(
    namespace: str, library: AsyncZeroconf, open_unicast: Callable[[], AsyncZeroconf]
) -> AsyncGenerator[Event]:
    """Yields the events of a namespace.

    Answers go to everybody, and nobody tells the same thing twice within a second. So the first
    question is also asked from ports of our own, which is answered at once, and to us alone.

    Args:
        library: where everybody is heard.
        open_unicast: opens one with ports of its own.
    """
    workers = Workers(namespace)
    try:
        async with _browser(library, workers, DNSQuestionType.QM):
            own = open_unicast()
            try:
                async with _browser(own, workers, DNSQuestionType.QU):
                    await asyncio.sleep(COLLECTING)
            finally:
                await asyncio.shield(own.async_close())
            yield workers.snapshot()
            while True:
                yield await workers.events.get()
    finally:
        workers.close()


def _browser(
    library: AsyncZeroconf, workers: Workers, kind: DNSQuestionType
) -> AsyncServiceBrowser:
    return AsyncServiceBrowser(library.zeroconf, TYPE, listener=workers, question_type=kind)


@dataclass(slots=True)
class Known:
    """A worker that is there.

    Attributes:
        ticks: after which it is gone.
    """

    worker: WorkerInfo
    revision: int
    ticks: float


class Workers(ServiceListener):
    """Knows who is there, by the names of their records.

    Time is counted in ticks. A process that was suspended has not heard anybody; it has missed
    ticks as well, and so takes nobody for gone.

    Attributes:
        events: what has changed.
    """

    def __init__(self, namespace: str) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._namespace = namespace
        self._known: dict[str, Known] = {}
        self._gone: dict[str, tuple[int, int]] = {}  # revisions, and ticks to remember them
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(TICK, self._tick)

    def snapshot(self) -> Snapshot:
        """Returns those who are there; what has changed before is no event any more."""
        self.events = asyncio.Queue()
        return Snapshot([known.worker for known in self._known.values()])

    def close(self) -> None:
        """Stops the clock."""
        self._timer.cancel()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Takes in what a worker tells of itself; what is not from a worker is ignored."""
        try:
            info = AsyncServiceInfo(type_, name)
        except Error:
            return  # such a name is none
        info.load_from_cache(zc)
        description = _description.understood(info.properties)
        if (
            description is None
            or description.namespace != self._namespace
            or name != _description.instance(description.worker.id)
        ):
            return
        before = self._known.get(name)
        revision = before.revision if before else self._gone.get(name, (0, 0))[0]
        worker = description.worker
        if description.revision <= revision:
            return
        if before is None and len(self._known) >= MOST:
            return
        self._known[name] = Known(worker, description.revision, description.lease / TICK)
        if before is None:
            self.events.put_nowait(Joined(worker))
        elif before.worker != worker:
            self.events.put_nowait(Changed(worker))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """The same, as the library does not know what a worker is."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """A worker says goodbye."""
        if (known := self._known.pop(name, None)) is not None:
            self._gone[name] = known.revision, GHOSTS
            self.events.put_nowait(Left(known.worker))

    def _tick(self) -> None:
        for name, known in list(self._known.items()):
            known.ticks -= 1
            if known.ticks < 0:
                del self._known[name]
                self.events.put_nowait(Left(known.worker))
        self._gone = {name: (rev, left - 1) for name, (rev, left) in self._gone.items() if left}
        self._timer = self._loop.call_later(TICK, self._tick)
