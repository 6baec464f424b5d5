"""Transports with one defect each: the conformance kit finds them."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from unit.sound_transport import TcpConnection, TcpListener, TcpTransport
from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    Handler,
    Listener,
    Segments,
    Take,
    Tls,
    Transport,
)
from wool.testing import TransportSuite, throwaway_tls


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class Broken(TransportSuite):
    """The sound transport, with some of its parts replaced.

    Attributes:
        caught_by: tests that must fail, or whose end must: `"end of test_…"`.
    """

    patience = 1.0
    caught_by: tuple[str, ...] = ()
    Connection: type[TcpConnection] = TcpConnection
    Listener: type[TcpListener] = TcpListener
    Transport: type[TcpTransport] = TcpTransport

    def transport(self) -> Transport:
        transport: Any = self.Transport()
        transport.connection, transport.listener = self.Connection, self.Listener
        return transport


# Messages do not arrive as they were sent -----------------------------------------------------


Messages = Sequence[Segments]
Received = Sequence[bytes | memoryview]


class TestReorders(Broken):
    caught_by = ("test_order",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send(messages[::-1])


class TestMerges(Broken):
    caught_by = ("test_order", "test_segments")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send([[part for segments in messages for part in segments]])


class TestSplits(Broken):
    caught_by = ("test_sizes",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            whole = b"".join(messages[0]) if len(messages) == 1 else b""
            if len(whole) > 65536:
                messages = [[whole[:65536]], [whole[65536:]]]
            await super().send(messages)


class TestTakesAnEmptyBatchForAMessage(Broken):
    caught_by = ("test_order",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send(messages or [[]])


class TestHasNoUpperLimit(Broken):
    caught_by = ("test_a_message_that_is_too_large",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self.writer.write(len(message).to_bytes(4, "big") + message)
            await self.writer.drain()


class TestTakesTooLittle(Broken):
    caught_by = ("test_sizes",)

    class Connection(TcpConnection):
        max_message_size = 500_000


class TestUsesItsBufferAgain(Broken):
    caught_by = ("test_what_is_received_is_not_touched_again",)

    class Connection(TcpConnection):
        buffer = bytearray()

        async def receive(self) -> Received:
            (message,) = await super().receive()
            if len(message) > len(self.buffer):
                self.buffer = bytearray(len(message))
            self.buffer[: len(message)] = message
            return [memoryview(self.buffer)[: len(message)]]


class TestSendsLater(Broken):
    """What was sent might have changed by then."""

    caught_by = ("test_what_was_sent_is_not_kept",)

    class Connection(TcpConnection):
        queue: asyncio.Queue[Messages] | None = None

        async def send(self, messages: Messages) -> None:
            if self.queue is None:
                self.queue = asyncio.Queue()
                self.pump = asyncio.ensure_future(self.run())
            self.queue.put_nowait(messages)

        async def run(self) -> None:
            assert self.queue is not None
            while True:
                await super().send(await self.queue.get())

        async def aclose(self) -> None:
            if self.queue is not None:
                self.pump.cancel()
            await super().aclose()


class TestIgnoresTheLimit(Broken):
    caught_by = ("test_receive_limit",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            self.receive_limit = self.max_message_size
            return await super().receive()


# Messages are lost, or waited for in vain -----------------------------------------------------


Messages = Sequence[Segments]
Received = Sequence[bytes | memoryview]


class TestHasNoBackPressure(Broken):
    caught_by = ("test_back_pressure", "test_a_peer_that_is_stopped_and_killed")

    class Connection(TcpConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.writer.transport.set_write_buffer_limits(high=1 << 30)


class TestClogsBothDirections(Broken):
    caught_by = ("test_back_pressure",)

    class Connection(TcpConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.lock = asyncio.Lock()

        async def send(self, messages: Messages) -> None:
            async with self.lock:
                await super().send(messages)

        async def receive(self) -> Received:
            async with self.lock:
                pass
            return await super().receive()


class TestClogsOtherConnections(Broken):
    caught_by = ("test_back_pressure",)

    class Connection(TcpConnection):
        lock = asyncio.Lock()

        async def send(self, messages: Messages) -> None:
            async with self.lock:
                await super().send(messages)


class TestLosesWhatACancelledReceiveHas(Broken):
    caught_by = ("test_a_cancelled_read[receive]",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            got = await super().receive()
            await asyncio.sleep(0)
            return got


class TestSwallowsCancelsOfReceive(Broken):
    caught_by = ("test_a_cancelled_read[receive]",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            while True:
                try:
                    return await super().receive()
                except asyncio.CancelledError:
                    pass


class TestSendsHalfAMessageWhenCancelled(Broken):
    caught_by = ("test_a_cancelled_send",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self.writer.write(len(message).to_bytes(4, "big") + message[:5])
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    self.writer.write(bytes(len(message) - 5))
                    raise
                self.writer.write(message[5:])
                await self.writer.drain()


class TestShieldsSend(Broken):
    caught_by = ("test_a_cancelled_send",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            sending = asyncio.ensure_future(super().send(messages))
            while not sending.done():
                try:
                    await asyncio.wait([sending])
                except asyncio.CancelledError:
                    pass
            sending.result()


class TestDropsWhatIsQueuedAtClosing(Broken):
    caught_by = ("test_what_is_queued_at_closing",)

    class Connection(TcpConnection):
        async def aclose(self) -> None:
            self.writer.transport.abort()
            await super().aclose()


class TestDropsTheLastMessageAtClosing(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_a_handler_that_ends")

    class Connection(TcpConnection):
        last: bytes | None = None

        async def send(self, messages: Messages) -> None:
            if messages:
                messages, last = messages[:-1], messages[-1]
                self.last = b"".join(last)
                asyncio.get_running_loop().call_soon(self.flush)
            await super().send(messages)

        def flush(self) -> None:
            if self.last is not None and not self.writer.is_closing():
                self.writer.write(len(self.last).to_bytes(4, "big") + self.last)
                self.last = None


class TestFlushesWithoutEnd(Broken):
    caught_by = ("test_closing_while_the_peer_takes_nothing",)

    class Connection(TcpConnection):
        async def aclose(self) -> None:
            self.close()
            await self.writer.wait_closed()


class TestHangsAtTheEnd(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_a_peer_that_is_stopped_and_killed")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                await asyncio.get_running_loop().create_future()
                raise


class TestReturnsNothingAtTheEnd(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_closing_again")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                return []


class TestClosesOnce(Broken):
    caught_by = ("test_closing_again",)

    class Connection(TcpConnection):
        closed = False

        async def aclose(self) -> None:
            if self.closed:
                raise RuntimeError("closed already")
            self.closed = True
            await super().aclose()


class TestForgetsWhoWaits(Broken):
    caught_by = ("test_closing_ends_what_waits",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                if not self.reader._eof or self.closing is not None:
                    await asyncio.get_running_loop().create_future()
                raise


class TestKnowsTooMuch(Broken):
    caught_by = ("test_what_is_known",)

    class Connection(TcpConnection):
        def extra(self, attribute: str, default: Any = None) -> Any:
            return {"peer": ("127.0.0.1", 80)}.get(attribute, default)


class TestSendsNowOutOfOrder(Broken):
    caught_by = ("test_sending_now",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return not self.writer.is_closing()

        def send_now(self, messages: Messages) -> None:
            whole = [b"".join(segments) for segments in messages]
            data = b"".join(len(message).to_bytes(4, "big") + message for message in whole)
            loop = self.writer.transport._loop  # type: ignore[attr-defined]
            loop.call_soon_threadsafe(loop.call_later, 0.01, self.writer.write, data)


class TestAlwaysSendsNow(Broken):
    caught_by = ("test_sending_now_to_a_peer_that_does_not_receive",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return True

        def send_now(self, messages: Messages) -> None:
            whole = [b"".join(segments) for segments in messages]
            data = b"".join(len(message).to_bytes(4, "big") + message for message in whole)
            loop = self.writer.transport._loop  # type: ignore[attr-defined]
            loop.call_soon_threadsafe(self.writer.write, data)


class TestSendsNowToTheLivingOnly(Broken):
    caught_by = ("test_sending_now",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return True

        def send_now(self, messages: Messages) -> None:
            if self.writer.is_closing() or self.reader._eof:
                raise ConnectionLost("the peer closed the connection")


# What is given as it arrives -------------------------------------------------------------------


class TestForgetsWhatArrivedBeforePumping(Broken):
    caught_by = ("test_pumping",)

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            await asyncio.sleep(0.01)
            self.reader._buffer.clear()  # type: ignore[attr-defined]
            await super().pump(take)


class TestLosesWhatACancelledPumpHas(Broken):
    caught_by = ("test_a_cancelled_read[pump]",)

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                await asyncio.sleep(0)
                take(got)


class TestSwallowsWhatTakingRaises(Broken):
    caught_by = ("test_what_taking_raises",)

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                try:
                    take(got)
                except LookupError:
                    pass


class TestPumpsWithoutEnd(Broken):
    caught_by = ("test_pumping", "test_closing_ends_what_waits[pump]")

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            try:
                await super().pump(take)
            except ConnectionLost:
                await asyncio.get_running_loop().create_future()
            raise AssertionError


# Places and those who dial them ---------------------------------------------------------------


class TestListensAtAWildcard(Broken):
    caught_by = ("test_addresses[given]",)

    class Listener(TcpListener):
        async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
            await super().open("0.0.0.0", port, tls)

        def told(self, host: str) -> str:
            return host


class TestTellsOfTheWildcardItWasGiven(Broken):
    caught_by = ("test_ports_and_wildcards",)

    class Listener(TcpListener):
        def told(self, host: str) -> str:
            return host


class TestListensForOthersToo(Broken):
    """Its address tells only half of it."""

    caught_by = ("test_addresses[chosen]",)

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
    caught_by = ("test_closing_a_listener",)

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
    caught_by = ("test_nobody_answers",)

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
    caught_by = ("test_closing_a_listener",)

    class Listener(TcpListener):
        async def serve(self, handler: Handler) -> None:
            try:
                await super().serve(handler)
            finally:
                self.server.close()

        async def aclose(self) -> None:
            pass


class TestLetsHandlersHurtOthers(Broken):
    caught_by = (
        "test_a_handler_that_ends[RuntimeError]",
        "test_a_handler_that_ends[ConnectionLost]",
    )

    class Listener(TcpListener):
        async def run(self, connection: TcpConnection) -> None:
            assert self.handler is not None
            try:
                await self.handler(connection)
            except Exception:
                for task in self.tasks:
                    task.cancel()


class TestRunsHandlersOneByOne(Broken):
    caught_by = ("test_a_crowd", "test_a_handler_that_ends")

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
    caught_by = ("test_a_stranger_that_dials[a request]", "test_a_stranger_that_dials[all bytes]")

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


# TLS ------------------------------------------------------------------------------------------


class Secured(Broken):
    def credentials(self) -> Tls:
        return throwaway_tls()


class TestDialsInClear(Secured):
    caught_by = ("test_the_certificate", "test_a_listener_without_tls")

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            return None


class TestUsesNoTlsAtAll(Secured):
    caught_by = (
        "test_the_certificate",
        "test_a_listener_without_tls",
        "test_a_dialler_without_tls",
    )

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            return None

        def server_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            return None


class TestVerifiesNothing(Secured):
    caught_by = ("test_who_is_trusted[authority]",)

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().client_tls(credentials)
            if context:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            return context


class TestVerifiesNoNames(Secured):
    caught_by = ("test_who_is_trusted[other name]",)

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().client_tls(credentials)
            if context:
                context.check_hostname = False
            return context


class TestVerifiesTheHostOnly(Secured):
    caught_by = ("test_who_is_trusted[name]", "test_who_is_trusted[other name]")

    class Transport(TcpTransport):
        async def dial(self, host: str, port: int, credentials: Tls | None) -> Connection:
            if credentials is not None:
                credentials.server_name = None
            return await super().dial(host, port, credentials)


class TestFailsWithRawTlsErrors(Secured):
    caught_by = ("test_who_is_trusted[authority]",)

    class Transport(TcpTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            try:
                return await super().connect(address, **options)
            except ConnectFailed as error:
                if error.reason == "tls":
                    raise ssl.SSLError(str(error)) from None
                raise


class TestAsksNobody(Secured):
    caught_by = ("test_whoever_dials_has_to_show_a_certificate",)

    class Transport(TcpTransport):
        def server_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().server_tls(credentials)
            if context:
                context.verify_mode = ssl.CERT_NONE
            return context


class TestKeepsItsFirstCertificate(Secured):
    caught_by = ("test_certificates_that_are_replaced",)

    class Transport(TcpTransport):
        def server_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().server_tls(credentials)
            if context:
                context.sni_callback = None
            return context
