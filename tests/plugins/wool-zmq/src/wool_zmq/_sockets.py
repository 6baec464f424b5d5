"""A ZeroMQ socket and what happens to it, told to an event loop.

Not pyzmq's own sockets for asyncio: they receive in tasks, and `asyncio.run` cancels all of them at
its end, when Wool has still to close what goes on at the other end of a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from wool_zmq._connection import ZmqConnection


class Monitored:
    """A socket and its monitor.

    Args:
        on_message: called with each ZeroMQ message.
        on_event: called with each of `events`, and the descriptor that it happened to.
    """

    def __init__(
        self,
        kind: int,
        options: Mapping[Any, int],
        events: int,
        on_message: Callable[[list[zmq.Frame]], None],
        on_event: Callable[[int, int], None],
    ) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        context.set(zmq.MAX_SOCKETS, 32768)  # three for each connection
        self.socket = context.socket(kind)
        common = {zmq.MAXMSGSIZE: ZmqConnection.max_message_size, zmq.SNDHWM: 0}
        for option, value in {**common, **options}.items():
            self.socket.setsockopt(option, value)
        self._monitor = self.socket.get_monitor_socket(events)
        self._on_message = on_message
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._descriptors = int(self.socket.FD), int(self._monitor.FD)
        self._loop.add_reader(self._descriptors[0], self._receive)
        self._loop.add_reader(self._descriptors[1], self._look)
        self._loop.call_soon(self._look)  # ZeroMQ's descriptors tell of changes since the last look

    def post(self, parts: list[Any]) -> None:
        """Hands over a message, without ever waiting; `ZMQError` if nobody is there."""
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        finally:
            self._loop.call_soon(self._receive)  # sending counts as a look, even in vain

    def _receive(self) -> None:
        while not self.socket.closed and int(self.socket.EVENTS) & zmq.POLLIN:
            self._on_message(self.socket.recv_multipart(copy=False))

    def _look(self) -> None:
        while not self._monitor.closed and int(self._monitor.EVENTS) & zmq.POLLIN:
            told = parse_monitor_message(self._monitor.recv_multipart())
            self._on_event(told["event"], told["value"])

    def close(self) -> None:
        """Closes both; what was posted still goes out, for a second. Idempotent."""
        if not self.socket.closed:
            for descriptor in self._descriptors:
                self._loop.remove_reader(descriptor)
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
            self.socket.close(linger=1000)
