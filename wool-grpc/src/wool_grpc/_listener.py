"""The listener: a gRPC server at one address, and its answers to probes of its health."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, NoReturn

from wool import abc
from wool._transports import failures, sockets
from wool_grpc._addresses import Address, advertised, is_taken, is_wildcard, known, peer_of
from wool_grpc._connection import FAREWELL, GrpcConnection, Stream
from wool_grpc._library import GrpcThread, aio, grpc, settle

SERVICE, METHOD = "wool.Transport", "Connect"

TAKEN = ("wool-transport", "1")
"""Metadata that a listener sends at once: that it has taken the call."""

_FOR_EVER = 1e9
"""Seconds that connections may outlive their listener."""

_CLOSING = 1000
"""Milliseconds that gRPC may take to close sockets, which it does in a thread of its own."""

_SERVING, _NOT_SERVING, _UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
"""Answers of the service `grpc.health.v1`: a `HealthCheckResponse` has one field, a number."""

_ASKED = (b"", b"\n\x00", b"\n\x0e" + SERVICE.encode())
"""Its questions: a `HealthCheckRequest` has one field, the name of a service, which may be empty.

Put together here: its library would take a tenth of a second to import."""


class GrpcListener(abc.Listener):
    """Takes connections.

    Args:
        place: where to listen, the host as a number.
    """

    def __init__(self, place: Address) -> None:
        self.address = place.text
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._home: asyncio.AbstractEventLoop | None = None  # of gRPC's thread
        # There: somebody serves the connections, nobody new is let in, all connections are to end.
        self._serving, self._stopping, self._ending = (asyncio.Event() for _ in range(3))
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._handler: abc.Handler | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._gone = False  # whether nobody new can get in any more

    # On the thread of the loop that it belongs to -------------------------------------------------

    async def open(self, thread: GrpcThread, name: str, secure: Any, options: Any) -> None:
        """Begins to listen.

        Args:
            name: the host as others are to dial it.

        Raises:
            ConnectFailed: that is not possible there.
        """
        place, ended = self._place, self._ended
        bound: asyncio.Future[int] = self._loop.create_future()
        try:
            # gRPC does not say why it cannot have a place, and takes away the socket of another.
            sockets.listen(place.where).close()
            sockets.remove(place.path)
            running = thread.start(lambda: self._run(secure, options, bound))
        except OSError as error:
            text = f"cannot listen at {place.text}: {failures.words(error)}"
            raise abc.ConnectFailed(text) from None
        running.add_done_callback(lambda _: settle(ended, None))
        try:
            port = await bound
        except RuntimeError:
            what = "it is in use" if secure is None else "it is in use, or the certificate is bad"
            raise abc.ConnectFailed(f"cannot listen at {place.text}: {what}") from None
        except asyncio.CancelledError:
            running.cancel()
            raise
        self._place = replace(place, port=port)
        if not place.path:
            self.address = advertised(place.host if is_wildcard(place.host) else name, port)

    def _admit(self, stream: Stream, peer: str) -> None:
        """Gives a connection to the handler."""
        if self._handler is None or self._stopped:
            stream.abort()
            return
        task = self._loop.create_task(_handle(self._handler, stream, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, handler: abc.Handler) -> None:
        if self._stopped:
            return
        self._handler = handler
        self._tell(self._serving)
        try:
            await self._loop.create_future()
        finally:
            self._stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tell(self._ending)
            await asyncio.shield(self._ended)
            await self.aclose()

    async def aclose(self) -> None:
        self._stop()
        if self._handler is None:
            self._tell(self._ending)
            await asyncio.shield(self._ended)
        for _ in range(_CLOSING):
            self._gone = self._gone or not is_taken(self._place)
            if self._gone:
                break
            await asyncio.sleep(0.001)

    def _stop(self) -> None:
        self._stopped = True
        self._tell(self._serving, self._stopping)

    def _tell(self, *events: asyncio.Event) -> None:
        if self._home is not None:
            for event in events:
                self._home.call_soon_threadsafe(event.set)

    # On gRPC's thread -----------------------------------------------------------------------------

    async def _run(self, secure: Any, options: Any, bound: asyncio.Future[int]) -> None:
        """Listens, until told to end.

        Args:
            bound: gets the port, or what has kept it from listening.
        """
        self._home = asyncio.get_running_loop()
        server = aio.server(options=options)
        handlers = {
            SERVICE: {METHOD: grpc.stream_stream_rpc_method_handler(self._accept)},
            "grpc.health.v1.Health": {
                "Check": grpc.unary_unary_rpc_method_handler(self._check),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            },
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*service) for service in handlers.items()]
        )
        target = self._place.target if self._place.path else self._place.endpoint
        try:
            if secure is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, secure)
            await server.start()
            settle(bound, port)
            await self._stopping.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(server.stop(_FOR_EVER))
                await self._ending.wait()
                await server.stop(None)
        except Exception as error:
            settle(bound, error)
        finally:
            await server.stop(None)

    async def _accept(self, _: Any, context: Any) -> None:
        """Handles a call, in a task of gRPC's, which gRPC cancels when the peer is gone."""
        await self._serving.wait()
        if self._stopping.is_set():
            await _leave(context)
        try:
            await context.send_initial_metadata((TAKEN,))
        except Exception:  # whoever dialled has gone
            await _leave(context)

        async def finish() -> None:
            await context.write(FAREWELL)
            await asyncio.get_running_loop().create_future()

        stream = Stream(self._loop, context.read, context.write, finish)

        def closed(_: object) -> None:
            stream.closed()

        context.add_done_callback(closed)
        try:
            self._loop.call_soon_threadsafe(self._admit, stream, context.peer())
        except RuntimeError:  # the loop is closed: nobody listens any more
            stream.abort()
        await stream.carry()
        await _leave(context)

    async def _check(self, request: bytes, context: Any) -> bytes:
        if request not in _ASKED:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is {SERVICE} alone")
        return _SERVING

    async def _watch(self, request: bytes, context: Any) -> None:
        await context.write(_SERVING if request in _ASKED else _UNKNOWN)
        await self._stopping.wait()
        await context.write(_NOT_SERVING)


async def _leave(context: Any) -> NoReturn:
    """Ends a call of gRPC.

    gRPC logs an error where it cannot send a status itself, as the peer has gone meanwhile.
    """
    with contextlib.suppress(Exception):
        await context.abort(grpc.StatusCode.CANCELLED)
    raise asyncio.CancelledError


async def _handle(handler: abc.Handler, stream: Stream, peer: str) -> None:
    connection = GrpcConnection(stream, known(peer_of(peer)))
    try:
        with contextlib.suppress(Exception):  # concerns this connection only, which ends
            await handler(connection)
    finally:
        await connection.aclose()
