"""The discovery: announces workers to the local network, and watches those that others announce.

Each worker tells of itself when it comes, changes and leaves, and once in each interval. One that
has not been heard for three intervals is gone. So nobody has to be asked whether it is still there,
the network carries the same however many watch, and a network that was cut heals by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from zeroconf.asyncio import AsyncZeroconf

from wool import abc
from wool_zeroconf import Options, _interfaces
from wool_zeroconf._announcement import ZeroconfAnnouncement
from wool_zeroconf._browsing import browse


@dataclass(slots=True, eq=False)
class Sockets:
    """Multicast DNS on one event loop, for all that a discovery announces and watches there."""

    library: AsyncZeroconf
    following: asyncio.Task[None]
    users: int = 0


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
        self._sockets: dict[asyncio.AbstractEventLoop, Sockets] = {}

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        """Tells the network of `worker`; leaving says goodbye, which takes 0.25 s.

        Raises:
            ConfigurationError: others could not dial the address, or there is too much to tell.
        """
        announcement = ZeroconfAnnouncement(worker, self._options)
        async with self._library() as library:
            try:
                await announcement.open(library)
                yield announcement
            finally:
                await announcement.aclose()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[abc.Event]]:
        """Watches the workers of the namespace, own ones included.

        The `Snapshot` comes after 0.3 s. A worker that says goodbye has left at once; one that
        falls silent, after three of its intervals.
        """
        open_unicast = partial(_open, self._options, unicast=True)
        async with self._library() as library:
            events = browse(self._options.namespace, library, open_unicast)
            async with abc.watching(events) as watch:
                yield watch

    @asynccontextmanager
    async def _library(self) -> AsyncGenerator[AsyncZeroconf]:
        """Opens the sockets of this loop for the first user, and closes them after the last."""
        loop = asyncio.get_running_loop()
        sockets = self._sockets.get(loop)
        if sockets is None:
            library = _open(self._options)
            following = loop.create_task(self._follow(library))
            sockets = self._sockets[loop] = Sockets(library, following)
        sockets.users += 1
        try:
            await sockets.library.zeroconf.async_wait_for_start()
            yield sockets.library
        finally:
            sockets.users -= 1
            if not sockets.users:
                del self._sockets[loop]
                sockets.following.cancel()
                await asyncio.shield(sockets.library.async_close())
                await asyncio.wait([sockets.following])

    async def _follow(self, library: AsyncZeroconf) -> None:
        """Follows network interfaces as they come and go."""
        while True:
            await asyncio.sleep(self._options.interval)
            try:
                await library.zeroconf.async_update_interfaces(_interfaces.choose(self._options))
            except (OSError, RuntimeError, abc.ConfigurationError):
                continue  # an interface has just gone; it may come back


def _open(options: Options, *, unicast: bool = False) -> AsyncZeroconf:
    """Returns sockets that are being opened.

    Args:
        unicast: they get ports of their own instead of 5353, which all programs share; so they
            hear what is sent to them, and nothing that is sent to everybody.

    Raises:
        ConfigurationError: there are no such interfaces, or no multicast DNS on them.
    """
    choices = _interfaces.choose(options)
    try:
        return AsyncZeroconf(interfaces=choices, unicast=unicast)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise abc.ConfigurationError(
            f"Workers cannot be found by multicast DNS: its UDP port 5353 cannot be used on "
            f"{', '.join(map(str, choices))}: {reason}. Choose other interfaces or another "
            f"ip_version; if another program keeps the port to itself, have it share the port "
            f"(for Avahi, disallow-other-stacks=no)"
        ) from error
