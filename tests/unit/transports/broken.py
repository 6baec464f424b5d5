"""What transports with one defect are made of."""

from __future__ import annotations

from typing import Any

import pytest

from unit.transports.tcp import TcpConnection, TcpListener, TcpTransport
from wool.abc import Transport
from wool.testing import TransportSuite


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
