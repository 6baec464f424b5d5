"""Transports that cannot listen or dial properly, or leave something behind."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from unit.transports.broken import Broken
from unit.transports.tcp import TcpConnection, TcpListener, TcpTransport
from wool.abc import ConnectFailed, Connection, ConnectionLost, Handler, Listener, Tls


class TestListensAtAWildcard(Broken):
    caught_by = ("test_addresses",)

    class Listener(TcpListener):
        async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
            await super().open("0.0.0.0", port, tls)

        def told(self, host: str) -> str:
            return host


class TestTellsOfTheWildcardItWasGiven(Broken):
    caught_by = ("test_a_wildcard",)

    class Listener(TcpListener):
        def told(self, host: str) -> str:
            return host


class TestListensForOthersToo(Broken):
    """Its address tells only half of it."""

    caught_by = ("test_a_place_of_its_choice",)

    class Transport(TcpTransport):
        async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
            listener = await super().listen(address, credentials=credentials)
            listener.address = listener.address.replace("127.0.0.1", "192.0.2.1")
            return listener


class TestReceivesInATask(Broken):
    """Which `asyncio.run` cancels at its end."""

    caught_by = ("test_the_end_of_a_loop",)

    class Connection(TcpConnection):
        queue: asyncio.Queue[Any] | None = None

        async def receive(self) -> Any:
            if self.queue is None:
                self.queue = asyncio.Queue(1)
                self.task = asyncio.ensure_future(self.fill(self.queue))
            got = await self.queue.get()
            if isinstance(got, ConnectionLost):
                self.queue.put_nowait(got)
                raise got
            return got

        async def fill(self, queue: asyncio.Queue[Any]) -> None:
            try:
                while True:
                    await queue.put(await super().receive())
            except ConnectionLost as error:
                await queue.put(error)

        async def aclose(self) -> None:
            if self.queue is not None:
                self.task.cancel()
            await super().aclose()


class TestSharesPlaces(Broken):
    caught_by = ("test_a_place_that_is_taken",)

    class Listener(TcpListener):
        async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
            self.server = await asyncio.start_server(
                self.accept, host, port, ssl=tls, reuse_port=True
            )
            host, port = self.server.sockets[0].getsockname()[:2]
            self.address = f"tcp://{host}:{port}"


class TestFailsWithRawErrors(Broken):
    caught_by = ("test_nobody_listens", "test_closing_a_listener")

    class Transport(TcpTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            try:
                return await super().connect(address, **options)
            except ConnectFailed:
                raise ConnectionRefusedError from None


class TestTrustsAddresses(Broken):
    caught_by = ("test_an_address_that_is_none",)

    class Transport(TcpTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            int(address.rpartition(":")[2])
            return await super().connect(address, **options)


class TestIgnoresTheTimeout(Broken):
    caught_by = ("test_a_stranger_that_says_nothing", "test_a_listener_that_does_not_answer")

    class Transport(TcpTransport):
        async def connect(self, address: str, *, timeout: float, **options: Any) -> Connection:
            return await super().connect(address, timeout=1000, **options)


class TestGoesOnWithACancelledConnect(Broken):
    caught_by = ("test_a_cancelled_connect",)

    class Transport(TcpTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            self.dialling: list[asyncio.Future[Connection]] = getattr(self, "dialling", [])
            self.dialling.append(asyncio.ensure_future(super().connect(address, **options)))
            return await asyncio.shield(self.dialling[-1])


class TestBelongsToOneLoop(Broken):
    caught_by = ("test_loops_of_several_threads",)

    class Transport(TcpTransport):
        gate: asyncio.Event | None = None

        async def connect(self, address: str, **options: Any) -> Connection:
            if self.gate is None:
                self.gate = asyncio.Event()
                self.gate._get_loop()  # type: ignore[attr-defined]
                asyncio.get_running_loop().call_soon(self.gate.set)
            if asyncio.get_running_loop() is not self.gate._get_loop():  # type: ignore[attr-defined]
                raise RuntimeError("bound to a different event loop")
            return await super().connect(address, **options)


class TestListensAfterClosing(Broken):
    caught_by = ("test_nobody_listens", "test_a_place_is_free_again")

    class Listener(TcpListener):
        async def serve(self, handler: Handler) -> None:
            try:
                await super().serve(handler)
            finally:
                self.server.close()

        async def aclose(self) -> None:
            pass


class TestLetsHandlersHurtOthers(Broken):
    caught_by = ("test_a_handler_that_raises",)

    class Listener(TcpListener):
        async def run(self, connection: TcpConnection) -> None:
            assert self.handler is not None
            try:
                await self.handler(connection)
            except Exception:
                for task in self.tasks:
                    task.cancel()


class TestRunsHandlersOneByOne(Broken):
    caught_by = ("test_a_crowd", "test_a_handler_that_raises")

    class Listener(TcpListener):
        busy: asyncio.Lock | None = None

        async def handle(self, connection: TcpConnection) -> None:
            self.busy = self.busy or asyncio.Lock()
            async with self.busy:
                await super().handle(connection)


class TestLeavesHandlersRunning(Broken):
    caught_by = ("test_cancelling_serve",)

    class Listener(TcpListener):
        async def run(self, connection: TcpConnection) -> None:
            asyncio.ensure_future(super().run(connection))
            await asyncio.get_running_loop().create_future()


class TestStumblesOverStrangers(Broken):
    caught_by = ("test_a_stranger_that_dials",)

    class Listener(TcpListener):
        async def run(self, connection: TcpConnection) -> None:
            await super().run(connection)
            if connection.size is not None:  # it went, or spoke of something too large
                self.server.close()


class TestLeaksDescriptors(Broken):
    caught_by = ("test_nothing_is_left", "test_a_cancelled_connect")

    class Transport(TcpTransport):
        async def dial(self, *args: Any) -> Connection:
            os.dup(0)
            return await super().dial(*args)


class TestLeavesTasks(Broken):
    caught_by = ("end of test_order",)

    class Connection(TcpConnection):
        async def aclose(self) -> None:
            await super().aclose()
            self.task = asyncio.ensure_future(asyncio.sleep(1000))
