"""The sockets of one event loop, on which everything is told and heard."""

from __future__ import annotations

import asyncio
from functools import partial

from zeroconf.asyncio import AsyncZeroconf

from wool.abc import ConfigurationError
from wool_zeroconf import Options, _interfaces, _library
from wool_zeroconf._browser import Browser


class Station:
    """Multicast DNS on one event loop, for all that a discovery announces and watches there.

    It follows network interfaces as they come and go.

    Attributes:
        users: how many use it.
        library: what they use.

    Raises:
        ConfigurationError: this machine has no such interfaces, or no multicast DNS on them.
    """

    def __init__(self, options: Options) -> None:
        _library.hush()
        self.users = 0
        self._options = options
        self.library = open_sockets(options)
        self._browser: Browser | None = None
        self._following = asyncio.create_task(self._follow())

    async def ready(self) -> None:
        """Waits until it can send and receive."""
        await self.library.zeroconf.async_wait_for_start()

    def browser(self) -> Browser:
        """Returns the one browser that is in use here, if need be a new one."""
        if self._browser is None or self._browser.ended:
            scout = partial(open_sockets, self._options, unicast=True)
            self._browser = Browser(self._options, self.library, scout)
        return self._browser

    async def aclose(self) -> None:
        """Closes the sockets. Cancelling it leaves nothing open."""
        self._following.cancel()
        await asyncio.shield(self.library.async_close())
        await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._options.interval)
            try:
                await self.library.async_update_interfaces(_interfaces.choose(self._options))
            except (OSError, RuntimeError, ConfigurationError):
                continue  # an interface has just gone; it may come back


def open_sockets(options: Options, *, unicast: bool = False) -> AsyncZeroconf:
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
        raise ConfigurationError(
            f"Workers cannot be found by multicast DNS: its UDP port 5353 cannot be used on "
            f"{', '.join(map(str, choices))}: {reason}. Choose other interfaces or another "
            f"ip_version; if another program keeps the port to itself, have it share the port "
            f"(for Avahi, disallow-other-stacks=no)"
        ) from error
