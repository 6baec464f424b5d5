"""A worker made known to the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from zeroconf import ServiceNameAlreadyRegistered, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo

from wool import abc
from wool_zeroconf import Options, _interfaces, _service, _text
from wool_zeroconf._text import Description

AGAIN = (1.0,)
"""Seconds after which what was told is told again, should the network have lost it."""

GOODBYES = (0.1, 0.1)
"""The same for a goodbye. It is waited for."""


class ZeroconfAnnouncement(abc.Announcement):
    """Answers for a worker while it is open.

    Raises:
        ConfigurationError: the worker's address is of no use to others, or it has too much to tell.
    """

    def __init__(self, worker: abc.WorkerInfo, options: Options) -> None:
        self._options = options
        self._revision = 0
        self._library: Zeroconf | None = None
        self._repeating: asyncio.Task[None] | None = None
        self._describe(worker)

    def open(self, library: Zeroconf) -> None:
        """Tells everybody of the worker, and answers those who ask.

        Raises:
            ConfigurationError: it is announced already.
        """
        try:
            library.registry.async_add(self._records)
        except ServiceNameAlreadyRegistered:
            raise abc.ConfigurationError(
                f"The worker {self._worker.id!r} is announced already; update that announcement"
            ) from None
        self._library = library
        self._tell(AGAIN)

    async def update(self, worker: abc.WorkerInfo) -> None:
        if self._library is None:
            raise RuntimeError(f"worker {self._worker.id!r} is announced no more")
        if worker.id != self._worker.id:
            raise ValueError(f"worker {self._worker.id!r} was announced, not {worker.id!r}")
        if replace(worker, load=0) != self._worker:
            self._describe(worker)
            self._library.registry.async_update(self._records)
            self._tell(AGAIN)

    async def aclose(self) -> None:
        """Says goodbye, three times. Cancelled, it has said so once."""
        if self._library is None:
            return
        self._library.registry.async_remove(self._records)
        repeating = self._tell(GOODBYES, ttl=0)
        self._library = None
        await repeating

    def _describe(self, worker: abc.WorkerInfo) -> None:
        _service.check(worker, _interfaces.choose(self._options))
        revision = max(self._revision + 1, time.time_ns() // 1_000_000)
        description = Description(
            worker=_text.announced(worker), namespace=self._options.namespace, revision=revision
        )
        self._records = _service.describe(description)
        self._worker, self._revision = replace(worker, load=0), revision

    def _tell(self, pauses: Sequence[float], ttl: int | None = None) -> asyncio.Task[None]:
        """Sends the records at once, and again after each of the pauses."""
        assert self._library is not None
        if self._repeating is not None:
            self._repeating.cancel()
        _send(self._library, self._records, ttl)
        repeating = _repeat(self._library, self._records, ttl, pauses)
        self._repeating = asyncio.create_task(repeating)
        return self._repeating


def _send(library: Zeroconf, records: AsyncServiceInfo, ttl: int | None) -> None:
    library.async_send(library.generate_service_broadcast(records, ttl))


async def _repeat(
    library: Zeroconf, records: AsyncServiceInfo, ttl: int | None, pauses: Sequence[float]
) -> None:
    for pause in pauses:
        await asyncio.sleep(pause)
        _send(library, records, ttl)
