"""Transports that secure connections less than their credentials say."""

from __future__ import annotations

import ssl
from typing import Any

from unit.transports.broken import Broken
from unit.transports.tcp import TcpTransport
from wool.abc import ConnectFailed, Connection, Tls
from wool.testing import throwaway_tls


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
    caught_by = ("test_listeners_that_are_not_trusted",)

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().client_tls(credentials)
            if context:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            return context


class TestVerifiesNoNames(Secured):
    caught_by = ("test_listeners_that_are_not_trusted[name]",)

    class Transport(TcpTransport):
        def client_tls(self, credentials: Tls | None) -> ssl.SSLContext | None:
            context = super().client_tls(credentials)
            if context:
                context.check_hostname = False
            return context


class TestVerifiesTheHostOnly(Secured):
    caught_by = ("test_listeners_that_are_trusted", "test_listeners_that_are_not_trusted[name]")

    class Transport(TcpTransport):
        async def dial(self, host: str, port: int, credentials: Tls | None) -> Connection:
            if credentials is not None:
                credentials.server_name = None
            return await super().dial(host, port, credentials)


class TestFailsWithRawTlsErrors(Secured):
    caught_by = ("test_listeners_that_are_not_trusted", "test_a_stranger_that_listens")

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
