"""Discovery `dns`: a name with many addresses, such as a headless service of Kubernetes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from wool import abc
from wool._backends.static import Silent
from wool.plugins import API, DiscoveryPlugin, hookimpl


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the discovery.

    Attributes:
        name: the name that resolves to the addresses of the workers.
        port: where all of them listen.
        scheme: the transport they listen with.
        interval: seconds after which the name is resolved again.
    """

    name: str = ""
    port: int = 7000
    scheme: str = "grpc"
    interval: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {self.port}")
        if self.interval <= 0:
            raise ValueError(f"interval must be more than 0 seconds, not {self.interval:g}")


@hookimpl
def wool_discoveries() -> Iterable[DiscoveryPlugin]:
    """Registers the discovery."""
    yield DiscoveryPlugin(
        name="dns",
        api=API,
        options=Options,
        factory=DnsDiscovery,
        capabilities=frozenset({"network"}),
    )


class DnsDiscovery(abc.Discovery):
    """Resolves a name again and again, the way the system does."""

    def __init__(self, options: Options) -> None:
        if not options.name:
            raise abc.ConfigurationError(
                "the discovery 'dns' needs a name to resolve: set WOOL_DNS__NAME, or name in "
                "[tool.wool.dns]"
            )
        self._options = options

    @asynccontextmanager
    async def announce(self, worker: abc.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        """Does nothing: whoever keeps the name's records knows who there is."""
        yield Silent()

    @asynccontextmanager
    async def watch(
        self,
    ) -> AsyncGenerator[AsyncIterator[abc.Snapshot | abc.Joined | abc.Changed | abc.Left]]:
        """Yields all workers whenever they are others than before.

        A name that cannot be resolved at the moment changes nothing; at the very first time it
        means that there are none.
        """
        events = self._events()
        try:
            yield events
        finally:
            await events.aclose()

    async def _events(self) -> AsyncGenerator[abc.Snapshot]:
        known: frozenset[str] | None = None
        while True:
            found = await self._resolve()
            if known is None or (found is not None and found != known):
                known = found or frozenset()
                workers = [abc.WorkerInfo(address=address) for address in sorted(known)]
                yield abc.Snapshot(workers)
            await asyncio.sleep(self._options.interval)

    async def _resolve(self) -> frozenset[str] | None:
        """Returns the addresses of workers; None if that cannot be told now."""
        options = self._options
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                options.name, options.port, type=socket.SOCK_STREAM
            )
        except OSError:
            return None
        hosts = {str(info[4][0]) for info in infos}
        return frozenset(
            f"{options.scheme}://{f'[{host}]' if ':' in host else host}:{options.port}"
            for host in hosts
        )
