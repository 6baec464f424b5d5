"""A worker made known to the network."""

# The library does not say what its awaitables are of.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from zeroconf import ServiceNameAlreadyRegistered
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from wool import abc
from wool_zeroconf import Options, _description, _interfaces
from wool_zeroconf._description import Description

MISSED = 3
"""A worker that has not told of itself in so many intervals is gone."""

AT_ONCE = 0.1
"""Seconds in which the library has sent something for the first time."""


class ZeroconfAnnouncement(abc.Announcement):
    """Tells of a worker, again in each interval, and answers questions for it.

    Raises:
        ConfigurationError: the worker's address is of no use to others, or it has too much to tell.
    """

    def __init__(self, worker: abc.WorkerInfo, options: Options) -> None:
        self._options = options
        self._revision = 0
        self._library: AsyncZeroconf | None = None
        self._sending: asyncio.Future[Any] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._records = self._describe(worker)

    async def open(self, library: AsyncZeroconf) -> None:
        """Tells everybody of the worker.

        Raises:
            ConfigurationError: it is announced already.
        """
        try:
            sending = await library.async_register_service(
                self._records, cooperating_responders=True
            )
        except ServiceNameAlreadyRegistered:
            raise abc.ConfigurationError(
                f"The worker {self._worker.id!r} is announced already; update that announcement"
            ) from None
        self._library = library
        self._follow(sending)
        self._renewing = asyncio.create_task(self._renew(library))

    async def update(self, worker: abc.WorkerInfo) -> None:
        if self._library is None:
            raise RuntimeError(f"worker {self._worker.id!r} is announced no more")
        if worker.id != self._worker.id:
            raise ValueError(f"worker {self._worker.id!r} was announced, not {worker.id!r}")
        if replace(worker, load=0) != self._worker:
            self._records = self._describe(worker)
            self._follow(await self._library.async_update_service(self._records))

    async def aclose(self) -> None:
        """Says goodbye, three times. Cancelled, it has said so once."""
        library, self._library = self._library, None
        if library is None:
            return
        if self._renewing is not None:
            self._renewing.cancel()
        goodbye = self._follow(await library.async_unregister_service(self._records))
        try:
            await asyncio.shield(goodbye)
        finally:
            goodbye.cancel()

    def _describe(self, worker: abc.WorkerInfo) -> AsyncServiceInfo:
        choices = _interfaces.choose(self._options)
        told = _description.told(worker, only_here=_interfaces.only_loopback(choices))
        revision = max(self._revision + 1, time.time_ns() // 1_000_000)
        description = Description(
            worker=told,
            namespace=self._options.namespace,
            revision=revision,
            lease=MISSED * self._options.interval,
        )
        records = _description.records(description)
        self._worker, self._revision = replace(worker, load=0), revision
        return records

    def _follow(self, sending: Awaitable[Any]) -> asyncio.Future[Any]:
        """Takes what the library sends several times; the copies of earlier records are stopped."""
        if self._sending is not None:
            self._sending.cancel()
        self._sending = asyncio.ensure_future(sending)
        return self._sending

    async def _renew(self, library: AsyncZeroconf) -> None:
        """Tells of the worker again and again, under new revisions, and once each time."""
        while True:
            await asyncio.sleep(self._options.interval * random.uniform(0.75, 1))  # noqa: S311
            try:
                self._records = self._describe(self._worker)
            except abc.ConfigurationError:
                continue  # there is no network at the moment
            sending = self._follow(await library.async_update_service(self._records))
            await asyncio.wait([sending], timeout=AT_ONCE)
            sending.cancel()
