"""Transport `zmq`. This module is light; pyzmq is imported when the transport is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wool.abc import Transport
from wool.plugins import TransportPlugin, hookimpl


@dataclass(frozen=True)
class Options:
    """There are none."""


@hookimpl
def wool_transports() -> Iterable[TransportPlugin]:
    """Registers the transport: for Unix sockets, as ZeroMQ has no TLS to leave the machine with."""
    reach = frozenset({"local", "uid", "unix"})
    yield TransportPlugin(name="zmq", api=1, options=Options, factory=_make, capabilities=reach)


def _make(options: Options) -> Transport:
    from wool_zmq._transport import ZmqTransport

    return ZmqTransport()
