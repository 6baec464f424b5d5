"""A transport whose connections have faults when somebody says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    Listener,
    Segments,
    Tls,
    Transport,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at the moment."""

    clogs: bool = False
    drops: bool = False
    refuses: bool = False
    delay: float = 0.0

    @staticmethod
    def sum(faults: Iterable[Fault]) -> Fault:
        """All that is wrong, if several things are."""
        found = list(faults)
        return Fault(
            clogs=any(fault.clogs for fault in found),
            drops=any(fault.drops for fault in found),
            refuses=any(fault.refuses for fault in found),
            delay=sum(fault.delay for fault in found),
        )


class Control(Protocol):
    """Whoever says so."""

    def _on(self, address: str) -> Fault: ...
    def _add(self, connection: FaultyConnection) -> None: ...
    def _remove(self, connection: FaultyConnection) -> None: ...


class FaultyTransport(Transport):
    """Another transport; what it dials has faults, and what it accepts is as ever."""

    def __init__(self, transport: Transport, control: Control) -> None:
        self._transport = transport
        self._control = control

    async def connect(self, address: str, *, credentials: Tls | None, timeout: float) -> Connection:
        """Dials, unless that is refused or goes nowhere."""
        try:
            async with asyncio.timeout(timeout):
                await self._way_to(address)
        except TimeoutError:
            raise ConnectFailed(f"{address} does not answer", reason="timeout") from None
        inner = await self._transport.connect(address, credentials=credentials, timeout=timeout)
        return FaultyConnection(inner, address, self._control)

    async def _way_to(self, address: str) -> None:
        while True:
            fault = self._control._on(address)
            if fault.refuses:
                raise ConnectFailed(f"{address} refuses connections", reason="refused")
            if not fault.clogs and not fault.drops:
                return await asyncio.sleep(fault.delay)
            await asyncio.sleep(0.01)

    async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
        """Listens as ever."""
        return await self._transport.listen(address, credentials=credentials)


class FaultyConnection(Connection):
    """Another connection, with what is wrong with its address.

    What happens to it is decided when a batch of messages passes.

    Attributes:
        has_lost: whether messages have been dropped, so that it is of no use any more.
    """

    def __init__(self, inner: Connection, address: str, control: Control) -> None:
        self.max_message_size: int = inner.max_message_size
        self._inner = inner
        self.receive_limit: int = inner.receive_limit
        self.address: str = address
        self.has_lost: bool = False
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._cut = asyncio.Event()
        self._changed = asyncio.Event()
        self._reading: asyncio.Future[Sequence[bytes | memoryview]] | None = None
        self._arrived: Sequence[bytes | memoryview] | None = None
        self._closing: asyncio.Future[None] | None = None
        control._add(self)

    async def send(self, messages: Sequence[Segments]) -> None:
        """Sends, late or not at all."""
        await self._pass(self._control._on(self.address).delay)
        if self._control._on(self.address).drops:
            self.has_lost = True
            return
        sending = asyncio.ensure_future(self._inner.send(messages))
        sending.add_done_callback(_retrieve)
        try:
            await self._unless_cut(sending)
            sending.result()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait([sending])

    def can_send_now(self) -> bool:
        """Only while nothing is wrong."""
        fault = self._control._on(self.address)
        return fault == Fault() and not self._cut.is_set() and self._inner.can_send_now()

    def send_now(self, messages: Sequence[Segments]) -> None:
        """Sends at once."""
        self._inner.send_now(messages)

    async def receive(self) -> Sequence[bytes | memoryview]:
        """Receives, late or not at all."""
        while True:
            if self._arrived is None:
                self._arrived = await self._read()
            await self._pass(self._control._on(self.address).delay)
            arrived, self._arrived = self._arrived, None
            if not self._control._on(self.address).drops:
                return arrived
            self.has_lost = True

    async def _read(self) -> Sequence[bytes | memoryview]:
        """A read goes on when its reader is cancelled; the next one gets what it brings."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._inner.receive())
            self._reading.add_done_callback(_retrieve)
        reading = self._reading
        await self._unless_cut(reading)
        self._reading = None
        if reading.cancelled():
            raise self._lost()
        return reading.result()

    async def _pass(self, delay: float) -> None:
        """Waits while nothing gets through."""
        if delay:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._cut.wait()
        while self._control._on(self.address).clogs and self._closing is None:
            self._changed.clear()
            await self._changed.wait()
        if self._cut.is_set():
            raise self._lost()

    async def _unless_cut(self, work: asyncio.Future[T]) -> None:
        """Waits for some work, but no longer than the connection lasts."""
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait([work, cut], return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.cancel()
        if self._cut.is_set():
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self.address} was cut")

    def notice(self) -> None:
        """Something is wrong now, or is not any more; from any thread."""
        self._call(self._changed.set)

    def cut(self) -> None:
        """Ends it; from any thread."""
        self._call(self._end)

    def _call(self, function: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed, and the connection with it
            self._control._remove(self)

    def _end(self) -> None:
        if not self._cut.is_set():
            self._cut.set()
            self._close()

    def _close(self) -> asyncio.Future[None]:
        if self._closing is None:
            self._control._remove(self)
            self._closing = asyncio.ensure_future(self._close_inner())
            self._changed.set()
        return self._closing

    async def _close_inner(self) -> None:
        reading = self._reading
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await self._inner.aclose()

    async def aclose(self) -> None:
        """Closes the other connection."""
        await asyncio.shield(self._close())

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "receive_limit":
            self._inner.receive_limit = value

    def extra(self, attribute: str, default: Any = None) -> Any:
        """What is known of the other connection."""
        return self._inner.extra(attribute, default)


def _retrieve(work: asyncio.Future[Any]) -> None:
    """Takes note of how some work has ended: where the connection is cut, nobody else may ask."""
    if not work.cancelled():
        work.exception()
