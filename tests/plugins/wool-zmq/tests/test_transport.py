"""The transport passes Wool's conformance kit."""

from __future__ import annotations

from pathlib import Path

from wool.abc import Transport
from wool.testing import TransportSuite
from wool_zmq._transport import ZmqTransport


class TestZmq(TransportSuite):
    def transport(self) -> Transport:
        return ZmqTransport()

    def address(self, tmp_path: Path) -> str:
        return f"zmq+unix://{tmp_path}/s"
