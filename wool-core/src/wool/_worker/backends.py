"""The discovery and the transport that settings choose, and the announcing of a worker."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec import Struct

from wool import abc
from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT, scheme_transport
from wool._settings.settings import Settings, blaming
from wool._settings.sources import ARGUMENT
from wool._worker.held import HeldContext
from wool._workerinfo import WorkerInfo
from wool.exceptions import ConfigurationError, WoolError
from wool.plugins import DiscoveryPlugin

NETWORK = ("grpc", "ws")
"""Transports for other machines, in the order in which they are chosen."""


class ChosenDiscovery(Struct, frozen=True):
    """A discovery that is used.

    Attributes:
        backend: the discovery itself.
        plugin: the back-end it is from; None: it was made by the program.
    """

    backend: abc.Discovery
    plugin: DiscoveryPlugin | None = None

    @property
    def reaches_out(self) -> bool:
        """Whether it is certain that workers of other machines are found."""
        return self.plugin is not None and "network" in self.plugin.capabilities

    def place(self, transport: str, port: int = 0) -> str | None:
        """Returns where a worker listens with a network transport to be found; None: loopback."""
        if self.plugin is not None and "local" in self.plugin.capabilities:
            return None
        host = self.backend.host
        return f"{transport}://[{host}]:{port}" if ":" in host else f"{transport}://{host}:{port}"

    def __str__(self) -> str:
        name = repr(self.plugin.name) if self.plugin else type(self.backend).__name__
        return f"the discovery {name}"


def choose_discovery(
    settings: Settings,
    name: str | None,
    arguments: Mapping[str, Any] | None = None,
    *,
    origin: str = ARGUMENT,
) -> ChosenDiscovery | None:
    """Returns the discovery called `name`, made as the settings say; None for None.

    Args:
        arguments: options that precede those of the settings.
        origin: where the name is from.

    Raises:
        ConfigurationError, PluginError: there is none, or it cannot be used.
    """
    if name is None:
        return None
    with blaming(origin):
        if "://" in name:
            raise ConfigurationError(
                f"{name!r} is the address of a worker, not the name of a discovery: give a list of "
                f"addresses, discovery=[{name!r}], or set WOOL_DISCOVERY=static and "
                f"WOOL_STATIC__ADDRESSES={name}"
            )
        found = lookup.discovery(name)
    options, _ = settings.options(name, found.plugin.options, arguments)
    return ChosenDiscovery(found.make(options), found.plugin)


def choose_transport(
    chosen: str | None, discovery: ChosenDiscovery | None, *, elsewhere: bool = False
) -> str:
    """Returns the name of the transport that workers listen with.

    Args:
        chosen: what is asked for.
        discovery: what others find them by.
        elsewhere: whether they are on other machines.

    Raises:
        ConfigurationError: there is none that reaches those others.
    """
    if chosen is not None:
        return chosen
    reaches_out = discovery is not None and discovery.reaches_out
    if not reaches_out and not elsewhere:
        return "unix"
    installed = lookup.process().names_of(TRANSPORT)
    scheme = "" if discovery is None else discovery.backend.scheme
    expected = [scheme_transport(f"{scheme}://")] if scheme else []
    for name in (*expected, *NETWORK):
        if name in installed:
            return name
    raise ConfigurationError(
        "workers are on other machines, which takes a transport that reaches them: "
        'pip install "wool-core[grpc]" or "wool-core[ws]"'
    )


def words(error: Exception) -> str:
    """Says what a discovery has raised."""
    return str(error) if isinstance(error, WoolError) else f"{type(error).__name__}: {error}"


class Announcing:
    """Announces a worker, from `open` until it is withdrawn. Lives on one event loop.

    That should be the loop of the worker's I/O: a discovery may answer for what it announces, which
    user code that blocks its own loop must not keep it from.
    """

    def __init__(self, chosen: ChosenDiscovery, worker: WorkerInfo) -> None:
        self._chosen = chosen
        self._worker = worker
        self._held = HeldContext(partial(chosen.backend.announce, worker))

    async def open(self) -> None:
        """Returns once the worker is announced. Cancelling it withdraws the worker.

        Raises:
            WoolError: the discovery fails; says why.
        """
        with self._explaining("announced"):
            await self._held.enter()

    def withdraw(self) -> None:
        """Begins to withdraw the worker."""
        self._held.leave()

    async def aclose(self) -> None:
        """Withdraws the worker, unless that is done.

        Raises:
            WoolError: the discovery fails; says why.
        """
        with self._explaining("withdrawn"):
            await self._held.left()

    @contextmanager
    def _explaining(self, verb: str) -> Generator[None]:
        try:
            yield
        except WoolError:
            raise
        except Exception as error:
            raise WoolError(
                f"the worker at {self._worker.address} cannot be {verb}, as {self._chosen} fails: "
                f"{words(error)}"
            ) from error
