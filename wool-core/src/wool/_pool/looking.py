"""A look at all workers that a discovery finds, without making a pool of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from wool._client.identity import hello
from wool._client.probing import Probe, Seen
from wool._pool.membership import Membership, is_typed
from wool._protocol import frames as f
from wool._protocol.status import ProcessStatus
from wool._security.credentials import Authenticator, Keyring, SameUser
from wool._settings.settings import Settings
from wool._worker.backends import ChosenDiscovery
from wool._worker.placement import credentials_of
from wool._worker.transports import Transports
from wool._workerinfo import WorkerInfo
from wool.exceptions import ConfigurationError, NoWorkersAvailable, WoolError

AT_ONCE = 64
"""So many workers are looked at at the same time."""

FIRST = 10.0
"""Seconds within which a discovery has to say something."""


class Look:
    """Looks at workers again and again.

    Args:
        chosen: finds them.
        credentials: what is shown to them; None: those of the settings.
        timeout: seconds for each of them to answer.

    Raises:
        ConfigurationError: the credentials of the settings are of no use.
    """

    def __init__(
        self,
        settings: Settings,
        chosen: ChosenDiscovery,
        credentials: Authenticator | None,
        timeout: float,
    ) -> None:
        core, _ = settings.core()
        self._serializer = core.serializer
        keyring = Keyring(SameUser(), credentials or credentials_of(settings))
        routes = Transports({}, settings).routes
        self._probe = Probe(routes, keyring, self._hello, timeout)
        self._membership = Membership(
            chosen, frozenset(), core.serializer, self._on_found, self._on_no_discovery
        )
        self._heard = asyncio.Event()
        self._failed = False

    def _hello(self, security: str) -> f.Hello:
        return hello([self._serializer], serializer=self._serializer, security=security)

    def _on_found(self, found: dict[str, WorkerInfo]) -> None:
        self._heard.set()

    def _on_no_discovery(self, error: Exception) -> bool:
        self._failed = True
        self._heard.set()
        return isinstance(error, ConfigurationError)

    @asynccontextmanager
    async def watching(self, wait: float) -> AsyncGenerator[None]:
        """Watches the discovery, from its first word and `wait` seconds more.

        Raises:
            NoWorkersAvailable: it fails, or says nothing.
        """
        watching = asyncio.create_task(self._membership.run())
        try:
            try:
                async with asyncio.timeout(FIRST):
                    await self._heard.wait()
            except TimeoutError:
                raise NoWorkersAvailable(self._membership.summary()) from None
            if self._failed:
                raise NoWorkersAvailable(self._membership.summary())
            await asyncio.sleep(wait)
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def at_all(self) -> list[Seen]:
        """Looks at all workers known now; returns them ordered by address."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(info: WorkerInfo) -> Seen:
            reason = self._membership.unfit(info)
            if reason is not None:
                shown = info if is_typed(info) else WorkerInfo(address=str(info.address))
                return Seen(shown, problem=f"it {reason}")
            async with gate:
                return await self._probe.look(info)

        seen = await asyncio.gather(*(one(info) for info in self._membership.found))
        return sorted(seen, key=lambda one: one.info.address)

    async def ask_all(self, cancel: str = "") -> dict[str, Answer]:
        """Asks all workers known now what they and their callers do; returns that by address."""
        known = [info.address for info in self._membership.found if is_typed(info)]
        return await ask_at(self._probe, known, cancel)


Answer = Sequence[ProcessStatus] | WoolError
"""A worker's words on itself and its callers, or the reason for its silence."""


def local_probe(settings: Settings, timeout: float) -> Probe:
    """Returns what asks workers of this user on this machine."""
    routes = Transports({}, settings).routes
    return Probe(routes, Keyring(SameUser()), lambda kind: hello([], security=kind), timeout)


async def ask_at(probe: Probe, addresses: Sequence[str], cancel: str = "") -> dict[str, Answer]:
    """Asks workers what they and their callers do; whoever runs the call `cancel` cancels it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(address: str) -> Answer:
        try:
            async with gate:
                return await probe.ask(address, callers=True, cancel=cancel)
        except WoolError as error:
            return error

    return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))
