"""The service: what a worker offers on its I/O loop, from the first connection to the last call.

The same for a spawned worker, a worker of threads and one that a program serves itself; they differ
in who decides when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from wool import abc
from wool._addresses import is_socket, socket_directory, socket_path
from wool._client.identity import PYTHON, VERSION
from wool._plugins.lookup import scheme_transport
from wool._security import sockets
from wool._security.credentials import SameUser
from wool._worker.executor import Executor
from wool._worker.server import Server, Setup
from wool._worker.transports import is_local
from wool._workerinfo import WorkerInfo
from wool.exceptions import PluginError, WoolError

_log = logging.getLogger("wool.worker")


class Service:
    """Listens for callers, and has their calls executed. Lives on one event loop.

    Args:
        on_retired: called when it takes no more calls because the pool that has started it can do
            without it; None: none has.
    """

    def __init__(
        self, setup: Setup, executor: Executor, on_retired: Callable[[], object] | None = None
    ) -> None:
        self._setup = setup
        self._executor = executor
        self._on_retired = on_retired
        self._locks: list[int] = []  # on directories of sockets
        self._directory: str | None = None  # made for the status alone
        self._status: abc.Listener | None = None
        self._telling: asyncio.Task[None] | None = None

    async def open(self) -> WorkerInfo:
        """Starts to serve; returns what others need to know.

        Raises:
            WoolError: it cannot listen there, or may not.
        """
        setup = self._setup
        plugin, transport = setup.transports.get(setup.transport)
        address = setup.listen
        local = is_local(address, plugin)
        credentials = setup.keyring.pick(address or f"{plugin.name}://", local=local)
        acceptor = credentials.acceptor()
        if address is not None and is_socket(address):
            self._locks.append(sockets.enter(socket_directory(address)))
            sockets.reclaim(socket_path(address))
        try:
            listener = self._listener = await _listen(plugin.name, transport, address, acceptor.tls)
        except BaseException:
            self._unlock()
            raise
        info = worker_info(setup.id, listener.address, setup.tags, setup.serializer_name)
        self._server = Server(setup, info, self._executor, acceptor, self._on_retired)
        self._serving = asyncio.create_task(listener.serve(self._server.handle))
        self._serving.add_done_callback(self._on_served)
        if sockets.SUPPORTED and "in-process" not in plugin.capabilities:
            with contextlib.suppress(OSError, WoolError):  # it is served without that as well
                await self._tell_user()
        return info

    async def _tell_user(self) -> None:
        """Listens for `wool ps` as well, at a Unix socket that only this user can reach."""
        listen = self._setup.listen
        directory = socket_directory(listen) if listen is not None and is_socket(listen) else ""
        if not sockets.is_ours(directory):
            self._directory = directory = sockets.new_directory()
            self._locks.append(sockets.enter(directory))
        _, transport = self._setup.transports.get("unix")
        path = sockets.status_socket_in(directory)
        self._status = listener = await transport.listen(f"unix://{path}", credentials=None)
        handle = partial(self._server.handle, acceptor=SameUser().acceptor())
        self._telling = asyncio.create_task(listener.serve(handle))

    def _on_served(self, serving: asyncio.Task[None]) -> None:
        """A listener that fails would otherwise only be missed."""
        if not serving.cancelled() and serving.exception() is not None:
            _log.error(
                "the transport %r listens no more at %s, for it has failed",
                self._setup.transport,
                self._listener.address,
                exc_info=serving.exception(),
            )

    @property
    def load(self) -> int:
        """How many calls there are, begun or not."""
        return self._executor.load

    def drain(self) -> None:
        """Takes no more calls."""
        self._server.start_drain()

    async def drained(self, grace: float) -> None:
        """Takes no more calls, and waits for running ones, for `grace` seconds."""
        await self._server.drain(grace)

    async def aclose(self, *, drain: float | None, grace: float) -> None:
        """Stops serving.

        Args:
            drain: seconds that running calls get to finish; None cancels them at once.
            grace: seconds that cancelled calls get to end, and then the lifespan.
        """
        try:
            if drain is not None:
                await self._server.drain(drain)
            await self._server.cancel_all(grace)
        finally:
            for serving in (self._serving, self._telling):
                if serving is not None:
                    serving.cancel()
                    await asyncio.gather(serving, return_exceptions=True)
            for listener in (self._listener, self._status):
                if listener is not None:
                    await listener.aclose()
            self._unlock()
            if self._directory is not None:
                sockets.discard(self._directory)
            await self._executor.lifespan.leave(grace)

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def discard(self) -> None:
        """Removes the directory that the worker's pool would have removed, had it not died."""
        address = self._setup.listen
        if address is not None and is_socket(address):
            sockets.discard(socket_directory(address))


async def _listen(
    name: str, transport: abc.Transport, address: str | None, tls: abc.Tls | None
) -> abc.Listener:
    """Has a transport listen; what it should not raise or return is said to be its fault."""
    place = f" at {address}" if address else ""
    try:
        listener = await transport.listen(address, credentials=tls)
    except WoolError:
        raise
    except Exception as error:
        raise PluginError(
            f"the transport {name!r} fails to listen{place}: {type(error).__name__}: {error}. "
            "Upgrade it, or report this to its authors"
        ) from error
    told = getattr(listener, "address", None)
    if not isinstance(told, str) or scheme_transport(told) != name:
        raise PluginError(
            f"the transport {name!r} listens{place} and calls that {told!r}, which is no address "
            f"{name}://…: report this to its authors"
        )
    return listener


def worker_info(ident: str, address: str, tags: Any, serializer: str) -> WorkerInfo:
    """Describes a worker in this process."""
    return WorkerInfo(
        id=ident,
        address=address,
        tags=frozenset(tags),
        host=socket.gethostname(),
        pid=os.getpid(),
        python=PYTHON,
        version=VERSION,
        serializers=(serializer,),
    )
