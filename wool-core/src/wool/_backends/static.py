"""Discovery `static`: a list of addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from wool import abc
from wool.plugins import API, DiscoveryPlugin, hookimpl


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the discovery."""

    addresses: Annotated[tuple[str, ...], "Of the workers, such as grpc://host:7000."] = ()

    def __post_init__(self) -> None:
        for address in self.addresses:
            if "://" not in address:
                raise ValueError(f"{address!r} is no address: write it as transport://host:port")


@hookimpl
def wool_discoveries() -> Iterable[DiscoveryPlugin]:
    """Registers the discovery."""
    yield DiscoveryPlugin(name="static", api=API, options=Options, factory=StaticDiscovery)


class Silent(abc.Announcement):
    """Nobody is told."""

    async def update(self, worker: abc.WorkerInfo) -> None:
        """Does nothing."""


class Listed(abc.Discovery):
    """Finds workers by a list that somebody else keeps, who needs no announcements."""

    announces = False

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        """Does nothing."""
        yield Silent()


class StaticDiscovery(Listed):
    """Finds workers at given addresses."""

    complete = True

    def __init__(self, options: Options) -> None:
        self._workers = [abc.WorkerInfo(address=address) for address in options.addresses]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[abc.Event]]:
        """Yields the list, and never anything else.

        Raises:
            ConfigurationError: it is empty.
        """
        if not self._workers:
            raise abc.ConfigurationError(
                "the discovery 'static' needs addresses of workers: give them as an argument, set "
                "WOOL_STATIC__ADDRESSES, or addresses in [tool.wool.static]"
            )
        async with abc.watching(self._events()) as events:
            yield events

    async def _events(self) -> AsyncGenerator[abc.Event]:
        yield abc.Snapshot(self._workers)
        await asyncio.get_running_loop().create_future()
