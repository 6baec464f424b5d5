"""Transports with one defect each: the conformance kit finds them."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from unit.scaffold import scaffold
from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    Listener,
    Segments,
    Take,
    Tls,
    Transport,
)
from wool.testing import TransportSuite, throwaway_tls

tcp = scaffold("transport", "sound")
SoundConnection: Any = tcp.SoundConnection
SoundListener: Any = tcp.SoundListener
SoundTransport: Any = tcp.SoundTransport


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class Broken(TransportSuite):
    """The sound transport, with some of its parts replaced.

    Attributes:
        caught_by: tests that must fail, or whose end must: `"end of test_…"`.
    """

    patience = 1.0
    caught_by: tuple[str, ...] = ()
    Connection: Any = SoundConnection
    Listener: Any = SoundListener
    Transport: Any = SoundTransport

    def transport(self) -> Transport:
        tcp.SoundConnection, tcp.SoundListener = self.Connection, self.Listener
        return self.Transport(tcp.Options())


# Messages do not arrive as they were sent -----------------------------------------------------


Messages = Sequence[Segments]
Received = Sequence[bytes | memoryview]


class TestReorders(Broken):
    caught_by = ("test_order",)

    class Connection(SoundConnection):
        async def send(self, messages: Messages) -> None:
            await super().send(messages[::-1])


class TestHasNoUpperLimit(Broken):
    caught_by = ("test_sizes",)

    class Connection(SoundConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self._writer.write(len(message).to_bytes(4, "big") + message)
            await self._writer.drain()


class TestUsesItsBufferAgain(Broken):
    caught_by = ("test_buffers",)

    class Connection(SoundConnection):
        buffer = bytearray()

        async def receive(self) -> Received:
            (message,) = await super().receive()
            if len(message) > len(self.buffer):
                self.buffer = bytearray(len(message))
            self.buffer[: len(message)] = message
            return [memoryview(self.buffer)[: len(message)]]


class TestIgnoresTheLimit(Broken):
    caught_by = ("test_receive_limit",)

    class Connection(SoundConnection):
        async def receive(self) -> Received:
            self.receive_limit = self.max_message_size
            return await super().receive()


# Messages are lost, or waited for in vain -----------------------------------------------------


class TestHasNoBackPressure(Broken):
    caught_by = ("test_back_pressure", "test_a_peer_that_is_stopped_and_killed")

    class Connection(SoundConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._writer.transport.set_write_buffer_limits(high=1 << 30)


class TestLosesWhatACancelledReceiveHas(Broken):
    caught_by = ("test_a_cancelled_read[receive]",)

    class Connection(SoundConnection):
        async def receive(self) -> Received:
            got = await super().receive()
            await asyncio.sleep(0)
            return got


class TestSendsHalfAMessageWhenCancelled(Broken):
    caught_by = ("test_a_cancelled_send",)

    class Connection(SoundConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self._writer.write(len(message).to_bytes(4, "big") + message[:5])
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    self._writer.write(bytes(len(message) - 5))
                    raise
                self._writer.write(message[5:])
                await self._writer.drain()


class TestDropsWhatIsQueuedAtClosing(Broken):
    caught_by = ("test_what_was_sent_before_closing",)

    class Connection(SoundConnection):
        async def aclose(self) -> None:
            self._writer.transport.abort()
            await super().aclose()


class TestFlushesWithoutEnd(Broken):
    caught_by = ("test_closing_while_send_waits[sender]",)

    class Connection(SoundConnection):
        async def aclose(self) -> None:
            self._close()
            await self._writer.wait_closed()


class TestForgetsWhoWaits(Broken):
    caught_by = ("test_closing_ends_what_waits",)

    class Connection(SoundConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                if not self._reader._eof or self._closing is not None:
                    await asyncio.get_running_loop().create_future()
                raise


class TestKnowsTooMuch(Broken):
    caught_by = ("test_what_is_known",)

    class Connection(SoundConnection):
        def extra(self, attribute: str, default: Any = None) -> Any:
            return {"peer": ("127.0.0.1", 80)}.get(attribute, default)


class TestAlwaysSendsNow(Broken):
    caught_by = ("test_sending_now",)

    class Connection(SoundConnection):
        def can_send_now(self) -> bool:
            return True

        def send_now(self, messages: Messages) -> None:
            whole = [b"".join(segments) for segments in messages]
            data = b"".join(len(message).to_bytes(4, "big") + message for message in whole)
            loop = self._writer.transport._loop
            loop.call_soon_threadsafe(self._writer.write, data)


# What is given as it arrives -------------------------------------------------------------------


class TestForgetsWhatArrivedBeforePumping(Broken):
    caught_by = ("test_pumping",)

    class Connection(SoundConnection):
        async def pump(self, take: Take) -> NoReturn:
            await asyncio.sleep(0.01)
            self._reader._buffer.clear()  # type: ignore[attr-defined]
            await super().pump(take)


class TestLosesWhatACancelledPumpHas(Broken):
    caught_by = ("test_a_cancelled_read[pump]",)

    class Connection(SoundConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                await asyncio.sleep(0)
                take(got)


class TestSwallowsWhatTakingRaises(Broken):
    caught_by = ("test_what_taking_raises",)

    class Connection(SoundConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                try:
                    take(got)
                except LookupError:
                    pass


# Places and those who dial them ---------------------------------------------------------------


class TestTellsOfTheWildcardItWasGiven(Broken):
    caught_by = ("test_addresses[wildcard]",)

    class Listener(SoundListener):
        async def open(self, host: str, *args: Any) -> None:
            await super().open(host, *args)
            self.address = f"{tcp.SCHEME}://{host}:{self.address.rpartition(':')[2]}"


class TestListensForOthersToo(Broken):
    """Its address tells only half of it."""

    caught_by = ("test_addresses[chosen]",)

    class Transport(SoundTransport):
        async def listen(self, address: str | None, *, credentials: Tls | None) -> Listener:
            listener = await super().listen(address, credentials=credentials)
            listener.address = listener.address.replace("127.0.0.1", "192.0.2.1")
            return listener


class TestFailsWithRawErrors(Broken):
    caught_by = ("test_closing_a_listener",)

    class Transport(SoundTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            try:
                return await super().connect(address, **options)
            except ConnectFailed:
                raise ConnectionRefusedError from None


class TestTrustsAddresses(Broken):
    caught_by = ("test_what_cannot_be_had",)

    class Transport(SoundTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            int(address.rpartition(":")[2])
            return await super().connect(address, **options)


class TestIgnoresTheTimeout(Broken):
    caught_by = ("test_nobody_answers",)

    class Transport(SoundTransport):
        async def connect(self, address: str, *, timeout: float, **options: Any) -> Connection:
            return await super().connect(address, timeout=1000, **options)


class TestGoesOnWithACancelledConnect(Broken):
    caught_by = ("test_a_cancelled_connect",)

    class Transport(SoundTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            self.dialling: list[asyncio.Future[Connection]] = getattr(self, "dialling", [])
            self.dialling.append(asyncio.ensure_future(super().connect(address, **options)))
            return await asyncio.shield(self.dialling[-1])


class TestBelongsToOneLoop(Broken):
    caught_by = ("test_loops_of_several_threads",)

    class Transport(SoundTransport):
        gate: asyncio.Event | None = None

        async def connect(self, address: str, **options: Any) -> Connection:
            if self.gate is None:
                self.gate = asyncio.Event()
                self.gate._get_loop()  # type: ignore[attr-defined]
                asyncio.get_running_loop().call_soon(self.gate.set)
            if asyncio.get_running_loop() is not self.gate._get_loop():  # type: ignore[attr-defined]
                raise RuntimeError("bound to a different event loop")
            return await super().connect(address, **options)


class TestLetsHandlersHurtOthers(Broken):
    caught_by = (
        "test_a_handler_that_ends[RuntimeError]",
        "test_a_handler_that_ends[ConnectionLost]",
    )

    class Listener(SoundListener):
        async def _handle(self, handler: Any, connection: Connection) -> None:
            try:
                await handler(connection)
            except Exception:
                await self.aclose()
            finally:
                await connection.aclose()


class TestLeavesHandlersRunning(Broken):
    caught_by = ("test_cancelling_serve",)

    class Listener(SoundListener):
        async def _handle(self, *args: Any) -> None:
            asyncio.ensure_future(super()._handle(*args))
            await asyncio.get_running_loop().create_future()


class TestStumblesOverStrangers(Broken):
    caught_by = ("test_strangers[a request]", "test_strangers[all bytes]")

    class Listener(SoundListener):
        async def _handle(self, handler: Any, connection: Any) -> None:
            await super()._handle(handler, connection)
            if connection._size is not None:  # it went, or spoke of something too large
                self._server.close()


class TestLeaksDescriptors(Broken):
    caught_by = ("test_nothing_is_left",)

    class Transport(SoundTransport):
        async def connect(self, address: str, **options: Any) -> Connection:
            os.dup(0)
            return await super().connect(address, **options)


class TestLeavesTasks(Broken):
    caught_by = ("end of test_order",)

    class Connection(SoundConnection):
        async def aclose(self) -> None:
            await super().aclose()
            self.task = asyncio.ensure_future(asyncio.sleep(1000))


# TLS ------------------------------------------------------------------------------------------


class Secured(Broken):
    def credentials(self) -> Tls:
        return throwaway_tls()


class Altered:
    """Credentials whose contexts are not what they should be."""

    def __init__(self, tls: Tls, alter: Any) -> None:
        self.tls, self.alter = tls, alter
        self.server_name = tls.server_name

    def client_context(self) -> ssl.SSLContext:
        context = self.tls.client_context()
        self.alter(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        context = self.tls.server_context()
        self.alter(context)
        return context


class AltersDialling(SoundTransport):
    def alter(self, context: ssl.SSLContext) -> None: ...

    async def connect(self, address: str, *, credentials: Any, **options: Any) -> Connection:
        altered = credentials and Altered(credentials, self.alter)
        return await super().connect(address, credentials=altered, **options)


class AltersListening(SoundTransport):
    def alter(self, context: ssl.SSLContext) -> None: ...

    async def listen(self, address: str | None, *, credentials: Any) -> Listener:
        altered = credentials and Altered(credentials, self.alter)
        return await super().listen(address, credentials=altered)


class TestDialsInClear(Secured):
    caught_by = ("test_with_tls_or_not_at_all",)

    class Transport(SoundTransport):
        async def connect(self, address: str, *, credentials: Any, **options: Any) -> Connection:
            return await super().connect(address, credentials=None, **options)


class TestVerifiesNothing(Secured):
    caught_by = ("test_who_is_trusted[other]",)

    class Transport(AltersDialling):
        def alter(self, context: ssl.SSLContext) -> None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE


class TestVerifiesNoNames(Secured):
    caught_by = ("test_who_is_trusted[other name]",)

    class Transport(AltersDialling):
        def alter(self, context: ssl.SSLContext) -> None:
            context.check_hostname = False


class TestAsksNobody(Secured):
    caught_by = ("test_whoever_dials_has_to_show_a_certificate",)

    class Transport(AltersListening):
        def alter(self, context: ssl.SSLContext) -> None:
            context.verify_mode = ssl.CERT_NONE


class TestKeepsItsFirstCertificate(Secured):
    caught_by = ("test_certificates_that_are_replaced",)

    class Transport(AltersListening):
        def alter(self, context: ssl.SSLContext) -> None:
            context.sni_callback = None
