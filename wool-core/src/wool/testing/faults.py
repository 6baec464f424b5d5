"""Faults on demand: connections that clog, lose, break or are slow, and workers that die."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Self

from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT, Found
from wool._workerinfo import WorkerInfo
from wool.exceptions import PluginError
from wool.plugins import TransportPlugin, hookimpl, register
from wool.testing._faulty import Fault, FaultyConnection, FaultyTransport

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

        Who dials waits in vain. Connections on which something was lost end with the context.
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

    # What faulty connections need

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
