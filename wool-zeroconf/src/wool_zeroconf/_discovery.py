"""The discovery: announces workers to the local network, and watches those that others announce."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from wool import abc
from wool_zeroconf import Options, _interfaces
from wool_zeroconf._announcement import ZeroconfAnnouncement
from wool_zeroconf._station import Station
from wool_zeroconf._watch import Watch


class ZeroconfDiscovery(abc.Discovery):
    """Finds workers by multicast DNS. May be used on several event loops at once.

    All that is announced and watched on one loop shares its sockets, which are open no longer than
    something is.

    Raises:
        ConfigurationError: this machine has no such interfaces.
    """

    def __init__(self, options: Options) -> None:
        self.host = _interfaces.host(options)
        self._options = options
        self._stations: dict[asyncio.AbstractEventLoop, Station] = {}

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        """Tells the network of `worker`; leaving says goodbye, which takes 0.2 s.

        Raises:
            ConfigurationError: others could not dial the address, or there is too much to tell.
        """
        announcement = ZeroconfAnnouncement(worker, self._options)
        async with self._station() as station:
            try:
                announcement.open(station.library.zeroconf)
                yield announcement
            finally:
                await announcement.aclose()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[abc.Event]]:
        """Watches the workers of the namespace, own ones included.

        The `Snapshot` comes after 0.15 s if this is the only watch, else at once.
        Whoever says goodbye has left at once; who falls silent, after being asked three times.
        """
        async with self._station() as station:
            browser = station.browser()
            watch = Watch(browser)
            browser.add(watch)
            try:
                yield watch
            finally:
                watch.close()
                await browser.remove(watch)

    @asynccontextmanager
    async def _station(self) -> AsyncGenerator[Station]:
        """Opens the sockets of this loop for the first user, and closes them after the last."""
        loop = asyncio.get_running_loop()
        station = self._stations.get(loop)
        if station is None:
            station = self._stations[loop] = Station(self._options)
        station.users += 1
        try:
            await station.ready()
            yield station
        finally:
            station.users -= 1
            if not station.users:
                del self._stations[loop]
                await station.aclose()
