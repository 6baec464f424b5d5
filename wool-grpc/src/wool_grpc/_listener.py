"""The listener: a gRPC server at one address."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import Any

from wool import abc
from wool_grpc import Options
from wool_grpc._addresses import Address, advertised, is_wildcard, known, peer_of
from wool_grpc._arguments import connections, server_arguments
from wool_grpc._calls import METHOD, TAKEN, Accepted
from wool_grpc._connection import GrpcConnection
from wool_grpc._door import Door
from wool_grpc._health import Health
from wool_grpc._library import aio, check_room, grpc
from wool_grpc._loops import LoopProxy
from wool_grpc._places import claim, is_taken
from wool_grpc._tls import ServerCertificates

_FOR_EVER = 1e9
"""Seconds that connections may outlive their listener."""

_CLOSING = 1000
"""Milliseconds that gRPC may take to close sockets, which it does in a thread of its own."""

_SEEING = 1.0
"""Seconds that gRPC may take to see the calls end that it has itself cancelled."""


class GrpcListener(abc.Listener):
    """Takes connections, and probes of its health.

    Args:
        place: where to listen, the host as a number.
        name: the host as others are to dial it.

    Raises:
        ConnectFailed: that is not possible there.
    """

    def __init__(
        self, proxy: LoopProxy, options: Options, place: Address, name: str, tls: abc.Tls | None
    ) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._health = Health()
        self._serving: asyncio.Future[abc.Handler] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Future[None] | None = None
        self._gone = False  # whether nobody new can get in any more
        secure = None if tls is None else ServerCertificates(tls).credentials()
        try:
            check_room()
            claim(place)
        except OSError as error:
            what = os.strerror(error.errno) if error.errno else str(error)
            raise abc.ConnectFailed(f"cannot listen at {place.text}: {what}") from None
        with proxy.posing():
            self._server = aio.server(options=server_arguments(options, place))
        self._place = replace(place, port=self._bind(place, secure))
        self._door = Door(0 if place.path else self._place.port, connections(options))
        if is_wildcard(place.host):  # as that of the name "0"
            name = place.host
        self.address = place.text if place.path else advertised(name, self._place.port)
        service, _, method = METHOD[1:].partition("/")
        stream = grpc.stream_stream_rpc_method_handler(self._accept)
        ours = grpc.method_handlers_generic_handler(service, {method: stream})
        self._server.add_generic_rpc_handlers((ours, self._health))

    def _bind(self, place: Address, secure: Any) -> int:
        """Has gRPC take the place; returns the port."""
        target = place.target if place.path else place.endpoint
        try:
            if secure is None:
                return self._server.add_insecure_port(target)
            return self._server.add_secure_port(target, secure)
        except RuntimeError:
            what = "it is in use" if secure is None else "it is in use, or the certificate is bad"
            raise abc.ConnectFailed(f"cannot listen at {place.text}: {what}") from None

    async def start(self) -> None:
        """Lets connections in."""
        try:
            await self._server.start()
        except BaseException:
            self._proxy.create_task(self._server.stop(None))
            raise

    async def _accept(self, _: Any, context: Any) -> None:
        """Handles a call, in a task of gRPC's."""
        call = Accepted(context)
        handler = await asyncio.shield(self._serving)
        if self._stopping is not None:
            return
        try:
            await context.send_initial_metadata((TAKEN,))
        except Exception:
            return  # whoever dialled has gone
        peer = peer_of(context.peer())
        connection = GrpcConnection(call, known(peer))
        task = self._loop.create_task(self._handle(handler, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        del connection, task
        with self._door.knowing(peer):
            await call.hold()

    async def _handle(self, handler: abc.Handler, connection: GrpcConnection) -> None:
        try:
            with contextlib.suppress(Exception):  # concerns this connection only, which ends
                await handler(connection)
        finally:
            await connection.aclose()

    async def serve(self, handler: abc.Handler) -> None:
        if self._stopping is not None:
            return
        self._serving.set_result(handler)
        try:
            await self._door.watch()
        finally:
            stopping = self._stop_listening()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.stop(None)
            await asyncio.shield(stopping)
            await self._proxy.answered(_SEEING)
            await self.aclose()

    async def aclose(self) -> None:
        stopping = self._stop_listening()
        if not self._serving.done():
            await asyncio.shield(stopping)
        for _ in range(_CLOSING):
            self._gone = self._gone or not is_taken(self._place)
            if self._gone:
                break
            await asyncio.sleep(0.001)

    def _stop_listening(self) -> asyncio.Future[None]:
        """Begins to stop. Connections live on if somebody serves them, until `serve` ends."""
        if self._stopping is None:
            grace = _FOR_EVER if self._serving.done() else None
            self._stopping = self._proxy.create_task(self._stop(grace))
        assert self._stopping is not None
        return self._stopping

    async def _stop(self, grace: float | None) -> None:
        await self._health.stop()
        await self._server.stop(grace)
