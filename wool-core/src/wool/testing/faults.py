"""Faults on demand: connections that clog, lose, break or are slow, and workers that die."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT, Found
from wool._workerinfo import WorkerInfo
from wool.abc import ConnectFailed, Connection, Listener, Segments, Tls, Transport
from wool.exceptions import PluginError
from wool.plugins import TransportPlugin, hookimpl, register

__all__ = ["Faults"]


class Faults:
    """Breaks what pools of this process have to do with, when a test says so.

        with wool.testing.Faults() as faults:
            async with wool.WorkerPool(size=2) as pool:
                with faults.clog():
                    ...

    While it is entered, pools that are opened dial through it, on every transport. Their callers
    are concerned, not the connections of workers among each other. All methods may be called from
    any thread. Those about connections take a worker, or its address, to leave the others alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: tuple[tuple[str | None, Fault], ...] = ()
        self._connections: set[FaultyConnection] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for name in sorted(lookup.process().names_of(TRANSPORT)):
            with contextlib.suppress(PluginError):  # whoever chooses it is told
                self._stack.enter_context(register(self._stand_in(lookup.transport(name))))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def clog(self, worker: WorkerInfo | str | None = None) -> Generator[None]:
        """Lets nothing through, either way, until the context is left; then all goes on.

        As if the other side had been stopped. Nothing is lost, and who dials has to wait.
        """
        with self._fault(worker, Fault(clogs=True)):
            yield

    @contextmanager
    def drop(self, worker: WorkerInfo | str | None = None) -> Generator[None]:
        """Loses what is sent, either way, in silence, as a network does that has fallen apart.

        A dial waits in vain. Connections on which something was lost end with the context.
        """
        try:
            with self._fault(worker, Fault(drops=True)):
                yield
        finally:
            for connection in self._concerned(worker):
                if connection.has_lost:
                    connection.cut()

    @contextmanager
    def delay(self, seconds: float, worker: WorkerInfo | str | None = None) -> Generator[None]:
        """Holds back each batch of messages for some time, either way. Order is kept."""
        with self._fault(worker, Fault(delay=seconds)):
            yield

    @contextmanager
    def refuse(self, worker: WorkerInfo | str | None = None) -> Generator[None]:
        """Lets nobody connect. Connections that are there already live on."""
        with self._fault(worker, Fault(refuses=True)):
            yield

    def cut(self, worker: WorkerInfo | str | None = None) -> None:
        """Ends the connections there are, at once and for both sides. New ones can be made."""
        for connection in self._concerned(worker):
            connection.cut()

    def kill(self, worker: WorkerInfo) -> None:
        """Kills the process of a worker, as `kill -9` does.

        Raises:
            ValueError: it has none that could be killed from here; says why.
        """
        os.kill(_process_of(worker), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)

    @contextmanager
    def stop(self, worker: WorkerInfo) -> Generator[None]:
        """Stops the process of a worker, as Ctrl-Z does, until the context is left.

        Raises:
            ValueError: it has none that could be stopped from here; says why.
        """
        pid = _process_of(worker)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # For faulty connections

    def _on(self, address: str) -> Fault:
        """Returns what is wrong with an address at the moment."""
        return Fault.sum(fault for place, fault in self._faults if place in (None, address))

    def _add(self, connection: FaultyConnection) -> None:
        """A connection has been made."""
        with self._lock:
            self._connections.add(connection)

    def _remove(self, connection: FaultyConnection) -> None:
        """A connection has been closed."""
        with self._lock:
            self._connections.discard(connection)

    def _stand_in(self, found: Found[TransportPlugin]) -> ModuleType:
        """Makes a module that yields a transport with faults, in this process.

        It has the name of the original: that is what workers in other processes import.
        """

        def make(options: Any) -> FaultyTransport:
            return FaultyTransport(found.plugin.factory(options), self)

        @hookimpl
        def wool_transports() -> Iterable[TransportPlugin]:
            yield dataclasses.replace(found.plugin, factory=make)

        module = ModuleType(found.module or "__main__")
        vars(module)["wool_transports"] = wool_transports
        return module

    @contextmanager
    def _fault(self, worker: WorkerInfo | str | None, fault: Fault) -> Generator[None]:
        entry = (_address_of(worker), fault)
        with self._lock:
            self._faults = (*self._faults, entry)
        self._tell(worker)
        try:
            yield
        finally:
            with self._lock:
                self._faults = tuple(other for other in self._faults if other is not entry)
            self._tell(worker)

    def _tell(self, worker: WorkerInfo | str | None) -> None:
        for connection in self._concerned(worker):
            connection.notice()

    def _concerned(self, worker: WorkerInfo | str | None) -> list[FaultyConnection]:
        address = _address_of(worker)
        with self._lock:
            return [one for one in self._connections if address in (None, one.address)]


def _address_of(worker: WorkerInfo | str | None) -> str | None:
    return worker.address if isinstance(worker, WorkerInfo) else worker


def _process_of(worker: WorkerInfo) -> int:
    if worker.pid == os.getpid():
        raise ValueError(
            f"the worker {worker.address} lives in this process; use a transport between "
            "processes, such as 'unix'"
        )
    if not worker.pid or worker.host != socket.gethostname():
        raise ValueError(f"the worker {worker.address} is no process of this machine")
    return worker.pid


# Connections with faults ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault at the moment."""

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


class FaultyTransport(Transport):
    """Another transport; what it dials has faults, and what it accepts is as ever."""

    def __init__(self, transport: Transport, faults: Faults) -> None:
        self._transport = transport
        self._faults = faults

    async def connect(self, address: str, *, credentials: Tls | None, timeout: float) -> Connection:
        """Dials, unless that is refused or goes nowhere."""
        try:
            async with asyncio.timeout(timeout):
                await self._way_to(address)
        except TimeoutError:
            raise ConnectFailed(f"{address} does not answer", reason="timeout") from None
        inner = await self._transport.connect(address, credentials=credentials, timeout=timeout)
        return FaultyConnection(inner, address, self._faults)

    async def _way_to(self, address: str) -> None:
        while True:
            fault = self._faults._on(address)
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

    Its fate is decided when a batch of messages passes.

    Attributes:
        has_lost: whether messages have been dropped, so that it is of no use any more.
    """

    def __init__(self, inner: Connection, address: str, faults: Faults) -> None:
        self.max_message_size: int = inner.max_message_size
        self._inner = inner
        self.receive_limit: int = inner.receive_limit
        self.address: str = address
        self.has_lost: bool = False
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._arrived: Sequence[bytes | memoryview] | None = None
        self._closing: asyncio.Future[None] | None = None
        faults._add(self)

    async def send(self, messages: Sequence[Segments]) -> None:
        """Sends, late or not at all."""
        await self._pass()
        if self._faults._on(self.address).drops:
            self.has_lost = True
        else:
            await self._inner.send(messages)

    def can_send_now(self) -> bool:
        """Only while nothing is wrong."""
        fault = self._faults._on(self.address)
        return fault == Fault() and not self._ended.is_set() and self._inner.can_send_now()

    def send_now(self, messages: Sequence[Segments]) -> None:
        """Sends at once."""
        self._inner.send_now(messages)

    async def receive(self) -> Sequence[bytes | memoryview]:
        """Receives, late or not at all."""
        while True:
            if self._arrived is None:
                self._arrived = await self._inner.receive()
            await self._pass()
            arrived, self._arrived = self._arrived, None
            if not (self._ended.is_set() or self._faults._on(self.address).drops):
                return arrived
            self.has_lost = True

    async def _pass(self) -> None:
        """Waits while nothing gets through."""
        if delay := self._faults._on(self.address).delay:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._ended.wait()
        while self._faults._on(self.address).clogs and not self._ended.is_set():
            self._changed.clear()
            await self._changed.wait()

    def notice(self) -> None:
        """Something is wrong now, or is not any more; from any thread."""
        self._call(self._changed.set)

    def cut(self) -> None:
        """Ends it; from any thread."""
        self._call(self._close)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed, and the connection with it
            self._faults._remove(self)

    def _close(self) -> asyncio.Future[None]:
        if self._closing is None:
            self._faults._remove(self)
            self._closing = asyncio.ensure_future(self._inner.aclose())
            self._ended.set()
            self._changed.set()
        return self._closing

    async def aclose(self) -> None:
        """Closes the other connection."""
        await asyncio.shield(self._close())

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "receive_limit":
            self._inner.receive_limit = value

    def extra(self, attribute: str, default: Any = None) -> Any:
        """Facts of the other connection."""
        return self._inner.extra(attribute, default)
