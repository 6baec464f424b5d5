"""Discovery `dns`: a name with many addresses, such as a headless service of Kubernetes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from wool import abc
from wool._backends.static import Listed
from wool.plugins import API, DiscoveryPlugin, hookimpl

_NONE = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""The errors of the resolver for a name that does not exist, or has no addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the discovery."""

    name: Annotated[str, "Name that resolves to the addresses of the workers."] = ""
    port: Annotated[int, Meta(ge=1, le=65535), "Where all of them listen."] = 7000
    scheme: Annotated[str, "Transport they listen with."] = "grpc"
    interval: Annotated[float, Meta(gt=0), "Seconds after which the name is resolved again."] = 5.0


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


class DnsDiscovery(Listed):
    """Resolves a name again and again, the way the system does."""

    def __init__(self, options: Options) -> None:
        if not options.name:
            raise abc.ConfigurationError(
                "the discovery 'dns' needs a name to resolve: set WOOL_DNS__NAME, or name in "
                "[tool.wool.dns]"
            )
        self._options = options
        self.port: int = options.port
        self.scheme: str = options.scheme

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[abc.Event]]:
        """Yields all workers whenever they are others than before.

        A name that does not exist has no workers. If no server answers, nothing changes; at the
        very first time, that is an error.

        Raises:
            ConfigurationError: the name cannot be one.
            OSError: no server has answered yet.
        """
        return abc.watching(self._events())

    async def _events(self) -> AsyncGenerator[abc.Event]:
        known = await self._resolve()
        yield _snapshot(known)
        while True:
            await asyncio.sleep(self._options.interval)
            try:
                found = await self._resolve()
            except OSError:
                continue  # those who are there can still be called
            if found != known:
                known = found
                yield _snapshot(known)

    async def _resolve(self) -> frozenset[str]:
        """Returns the addresses of workers; OSError says that nobody knows."""
        options = self._options
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                options.name, options.port, type=socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            if error.errno in _NONE:
                return frozenset()
            raise OSError(f"{options.name!r} cannot be resolved: {error.strerror}") from error
        except UnicodeError:
            raise abc.ConfigurationError(
                f"{options.name!r} cannot be a name: mend WOOL_DNS__NAME, or name in "
                "[tool.wool.dns]"
            ) from None
        hosts = {str(info[4][0]) for info in infos}
        return frozenset(
            f"{options.scheme}://{f'[{host}]' if ':' in host else host}:{options.port}"
            for host in hosts
        )


def _snapshot(addresses: frozenset[str]) -> abc.Snapshot:
    return abc.Snapshot([abc.WorkerInfo(address=address) for address in sorted(addresses)])
