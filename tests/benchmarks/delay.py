"""A TCP proxy that is as far away as it is told.

    python delay.py --to 127.0.0.1:5000 --delay 50 [--rate 12.5] [--window 3]

prints the address it listens at, and forwards to the other one until standard input is closed.
Connecting takes a round trip, and what is sent arrives half a round trip later. As on a real link,
a connection has only so many bytes on their way in either direction: those of ten packets at first,
twice as many after each round trip, a window at most. So it carries a window per round trip, and
what exceeds that waits at its sender. 3 MiB are what Linux makes of its own limits by default. All
connections share the rate, in order of arrival. Nothing gets lost.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable

FIRST = 10 * 1448
"""Bytes that a new connection may have on their way, as on Linux."""

QUEUE = 256 << 10
"""Bytes of one connection that a router keeps waiting if the rate is limited."""

BUFFER = 256 << 10
"""Bytes taken from a socket at once."""


class Link:
    """One direction of the link.

    Args:
        delay: seconds that bytes are on their way.
        rate: bytes a second.
        window: bytes that one connection may have on their way.
    """

    def __init__(self, delay: float, rate: float, window: int) -> None:
        self.delay = delay
        self.window = int(min(window, rate * 2 * delay + QUEUE))
        self._rate = rate
        self._free = 0.0

    def arrival(self, size: int, now: float) -> float:
        """Puts bytes on the link; returns when they get to the other end."""
        self._free = max(self._free, now) + size / self._rate
        return self._free + self.delay


class Schedule:
    """Hands over each item when its time has come, in the order in which they were put in."""

    def __init__(self, take: Callable[..., None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._take = take
        self._items: deque[tuple[float, object]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._held = False

    def put(self, when: float, item: object) -> None:
        self._items.append((when, item))
        if self._timer is None:
            self._run()

    def hold(self) -> None:
        """Hands over nothing until `release`."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._run()

    def _run(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._items and not self._held and self._items[0][0] <= now:
            self._take(self._items.popleft()[1])
        if self._items and not self._held:
            self._timer = self._loop.call_at(self._items[0][0], self._run)


class End(asyncio.BufferedProtocol):
    """One of the two sockets of a connection: what it reads, the other one writes."""

    other: End

    def __init__(self, link: Link) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._window = min(FIRST, link.window)
        self._under_way = 0  # bytes that have not been acknowledged
        self._data = Schedule(self._arrive)
        self._acknowledgements = Schedule(self._acknowledge)
        self._buffer = memoryview(bytearray(BUFFER))

    def join(self, other: End) -> None:
        """Sends what arrives to `other`."""
        self.other = other
        self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=BUFFER)
        transport.pause_reading()
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self._window - self._under_way]

    def buffer_updated(self, nbytes: int) -> None:
        self._under_way += nbytes
        if self._under_way >= self._window:
            self._transport.pause_reading()
        self._depart(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        self._depart(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._depart(b"")

    def pause_writing(self) -> None:
        self.other._data.hold()

    def resume_writing(self) -> None:
        self.other._data.release()

    def _depart(self, data: bytes) -> None:
        self._data.put(self._link.arrival(len(data), self._loop.time()), data)

    def _arrive(self, data: bytes) -> None:
        transport = self.other._transport
        if not data:
            transport.close()
        elif not transport.is_closing():
            transport.write(data)
        self._acknowledgements.put(self._loop.time() + self._link.delay, len(data))

    def _acknowledge(self, size: int) -> None:
        self._under_way -= size
        self._window = min(self._window + size, self._link.window)
        if not self._transport.is_closing() and self._under_way < self._window:
            self._transport.resume_reading()


class Proxy:
    """Forwards connections.

    Args:
        host, port: where to.
        delay: seconds that a round trip takes.
        rate: bytes a second in either direction.
        window: bytes that one connection may have on their way in either direction.
    """

    def __init__(self, host: str, port: int, delay: float, rate: float, window: int) -> None:
        self._place = host, port
        self._there = Link(delay / 2, rate, window)
        self._back = Link(delay / 2, rate, window)
        # What waits in our own sockets would wait at the sender otherwise: 2 ms' worth.
        self._buffer = int(min(BUFFER, max(rate / 500, BUFFER / 8)))
        self._dialling: set[asyncio.Task[None]] = set()

    async def listen(self) -> str:
        """Returns the address it listens at."""
        sock = self._socket()
        sock.bind(("127.0.0.1", 0))
        await asyncio.get_running_loop().create_server(self._accept, sock=sock, backlog=1024)
        return "%s:%d" % sock.getsockname()

    def _accept(self) -> End:
        near = End(self._there)
        task = asyncio.get_running_loop().create_task(self._dial(near))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)
        return near

    async def _dial(self, near: End) -> None:
        await asyncio.sleep(2 * self._there.delay)  # as TCP's handshake takes
        loop, sock = asyncio.get_running_loop(), self._socket()
        await loop.sock_connect(sock, self._place)
        _, far = await loop.create_connection(lambda: End(self._back), sock=sock)
        near.other = far
        far.join(near)
        near.join(far)

    def _socket(self) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        sock.setblocking(False)
        return sock


async def main() -> None:
    parser = argparse.ArgumentParser(description="a TCP proxy that is far away")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, help="of a round trip, in ms")
    parser.add_argument("--rate", type=float, default=math.inf, help="in MB/s, by default no limit")
    parser.add_argument("--window", type=float, default=3.0, help="of each connection, in MiB")
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    rate, window = given.rate * 1e6, int(given.window * (1 << 20))
    print(await Proxy(host, int(port), given.delay / 1e3, rate, window).listen(), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def precise_loop() -> asyncio.AbstractEventLoop:
    """Makes a loop whose timers are not rounded up to milliseconds, as those of epoll are."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(main())
