"""The transport `ws`: what it is called, addresses, messages on the wire, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed

from support.transports import answered, echo, lost, read
from support.waiting import until
from unit.wskit import MIB, connected, dial, serving
from wool._transports import sockets
from wool.abc import ConnectFailed, ConnectionLost, Tls, Transport
from wool.testing import TransportSuite, throwaway_tls
from wool_ws import Options, _addresses
from wool_ws._connection import FRAME
from wool_ws._transport import WebSocketTransport

TLS = throwaway_tls()


class TestUnixSocket(TransportSuite):
    def transport(self) -> Transport:
        return WebSocketTransport(Options())

    def address(self, tmp_path: Path) -> str:
        return f"ws+unix://{tmp_path}/socket"


class TestTls(TransportSuite):
    def transport(self) -> Transport:
        return WebSocketTransport(Options())

    def credentials(self) -> Tls:
        return TLS


# Addresses


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ws://host:1234/path", ("host", 1234, "", "/path", False)),
        ("wss://host/a/b/", ("host", None, "", "/a/b/", True)),
        ("ws://host", ("host", None, "", "/default", False)),
        ("ws://10.0.0.1:1/", ("10.0.0.1", 1, "", "/", False)),
        ("wss://[2001:db8::1]:443/x", ("2001:db8::1", 443, "", "/x", True)),
        ("ws+unix:///tmp/so cket", ("localhost", None, "/tmp/so cket", "/default", False)),
    ],
)
def test_addresses(text: str, parts: tuple[Any, ...]) -> None:
    place = _addresses.parse(text, "/default")
    assert (place.host, place.port, place.socket, place.path, place.secure) == parts
    assert _addresses.parse(str(place), "/default") == place


@pytest.mark.parametrize(
    "text",
    [
        *("", "host:1234", "ws://", "ws:///path", "http://host", "ws://host:x", "ws://host:99999"),
        *("ws://me@host", "ws://host?query", "ws://host#fragment", "ws://[::1", "ws://ho st"),
        *("ws+unix:///a\0b", "ws+unix://", "ws+unix://relative", "ws://höst", "ws://host/a\nb"),
    ],
)
async def test_addresses_that_are_none(text: str) -> None:
    for attempt in (
        dial(text),
        WebSocketTransport(Options()).listen(text or "x", credentials=None),
    ):
        with pytest.raises(ConnectFailed):
            await attempt


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.1"])
async def test_hosts(host: str) -> None:
    try:
        async with serving(f"ws://{host}:0/path", handler=echo) as served:
            assert served.address == f"ws://{host}:{served.place[1]}/path"
            await answered(connection := await dial(served.address))
            assert connection.extra("same_host") is True
            await connection.aclose()
    except ConnectFailed as error:
        if host != "[::1]":
            raise
        pytest.skip(str(error))


async def test_a_name_with_a_number_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that answers is used, and does not wait for the others; what they get is closed."""
    dialled: list[str] = []
    late: list[socket.socket] = []
    reached = sockets.dial_one

    async def dialling(place: sockets.Place) -> socket.socket:
        host = place[1][0]
        dialled.append(host)
        match host:
            case "192.0.2.1":  # nobody answers there, and it may be too late to give up
                try:
                    return await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    late.append(socket.socket())
                    return late[0]
            case "192.0.2.2":
                raise ConnectionRefusedError
            case _:
                return await reached(place)

    async def resolve(host: str, port: int) -> list[tuple[int, Any]]:
        hosts = ("192.0.2.1", "192.0.2.2", "127.0.0.1", "192.0.2.3")
        return [(socket.AF_INET, (host, port)) for host in hosts]

    async with serving("ws://127.0.0.1:0/", handler=echo) as served:
        monkeypatch.setattr(sockets, "dial_one", dialling)
        monkeypatch.setattr(sockets, "resolve", resolve)
        connection = await dial(f"ws://some.name:{served.place[1]}/", timeout=5)
        await answered(connection)
        await connection.aclose()
    assert dialled == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]
    assert late[0].fileno() < 0


@pytest.mark.parametrize(("secure", "port"), [(False, 80), (True, 443)])
async def test_default_ports(monkeypatch: pytest.MonkeyPatch, secure: bool, port: int) -> None:
    dialled: list[int] = []

    async def resolving(host: str, port: int) -> Any:
        dialled.append(port)
        raise ConnectionRefusedError

    monkeypatch.setattr(sockets, "resolve", resolving)
    for address in ("ws://host", "wss://host") if secure else ("ws://host",):
        with pytest.raises(ConnectFailed) as raised:
            await dial(address, TLS if secure else None)
        assert raised.value.reason == "refused"
    assert set(dialled) == {port}


async def test_small_messages_leave_at_once() -> None:
    async with connected() as ends:
        for end in ends:
            sock = end._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# What is known


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For"])
async def test_what_is_known_of_the_peer_of_a_proxy(tmp_path: Path, header: str) -> None:
    """Not where it is, nor who."""
    async with serving(f"ws+unix://{tmp_path}/s") as served:
        headers = {header: "10.0.0.1"}
        async with unix_connect(str(tmp_path / "s"), additional_headers=headers):
            end = await served.next()
            assert end.extra("same_host") is end.extra("uid") is None
            assert isinstance(end.extra("peer"), str)


# Messages on the wire


def prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def meet(address: str) -> connect:
    """A peer made of websockets alone, which can misbehave."""
    return connect(address, proxy=None, close_timeout=0.1)


async def test_frames_carry_a_stream() -> None:
    """Large messages are in several, and it does not matter how a peer cuts it."""
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next()
        await ours.send([[b"one"], [], [b"t", b"wo"]])
        await ours.send([])
        await ours.send([[b"x" * 500_000]])
        assert await peer.recv() == prefixed(b"one") + prefixed(b"") + prefixed(b"two")
        received = b""
        while len(received) < 500_004:
            part = await peer.recv()
            assert isinstance(part, bytes) and len(part) <= FRAME
            received += part
        assert received == prefixed(b"x" * 500_000)
        data = prefixed(b"three") + prefixed(b"four" * 9)
        await peer.send(data)
        await peer.send([data[:2], b"", data[2:20], data[20:]])
        for part in (data[:3], data[3:11], data[11:]):
            await peer.send(part)
        assert await read(ours, 6) == [b"three", b"four" * 9] * 3


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ("text", "text"),
        (prefixed(b"x" * 70_000), "more than 4096 bytes"),
        ([prefixed(b"x" * 5000)[:100], b""], "more than 4096 bytes"),
    ],
)
async def test_what_is_no_message_ends_the_connection(sent: Any, match: str) -> None:
    """All that came before is delivered, and the peer is told."""
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next(stranger=True)
        await peer.send(prefixed(b"good"))
        await peer.send(sent)
        assert await read(ours, 1) == [b"good"]
        await lost(ours, match if len(sent) < FRAME else "rules")
        with pytest.raises(ConnectionClosed):
            await peer.recv()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x05\x05\0\0\0\0",  # not masked
        b"\xf2\x80\0\0\0\0",  # reserved bits
        b"\x8b\x80\0\0\0\0",  # no such opcode
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
        b"\x02\x80\0\0\0\0" * 2,  # a new message within another
        b"\x82\xff" + struct.pack("!Q", 1 << 62),
        b"\x88\x81\0\0\0\0x",  # a close frame of one byte
    ],
)
async def test_what_is_no_websocket_ends_the_connection(frame: bytes) -> None:
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next()
        peer.transport.write(frame)
        await lost(ours, "rules of WebSockets")


# Limits


@pytest.mark.parametrize("stranger", [True, False])
async def test_a_large_frame_is_refused_when_announced(stranger: bool) -> None:
    for size in (FRAME, FRAME + 1):
        async with serving() as served, meet(served.address) as peer:
            ours = await served.next(stranger=stranger)
            peer.transport.write(b"\x02\xff" + struct.pack("!Q", size) + bytes(4))
            if size > FRAME:
                await lost(ours, "rules of WebSockets")
            else:
                await ours.send([[b"still here"]])
                assert await peer.recv() == prefixed(b"still here")


async def test_what_a_stranger_can_make_us_hold() -> None:
    """No more than one read of the loop brings, if he sends without end."""
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next(stranger=True)
        while not peer.transport.get_write_buffer_size():
            peer.protocol.send_binary(prefixed(bytes(4096)) * 3)
            peer.send_data()
            await asyncio.sleep(0)
        assert not ours._reading
        assert ours._inbox.waiting < 300_000


async def test_a_stranger_that_sends_thousands_of_messages() -> None:
    """Is cut off: small ones take more memory than they have bytes."""
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next(stranger=True)
        while not peer.transport.get_write_buffer_size() and not ours._end:
            peer.protocol.send_binary(prefixed(b"") * 4000)
            peer.send_data()
            await asyncio.sleep(0)
        assert len(await ours.receive()) < 5000
        await lost(ours, "too many")


async def test_a_ping() -> None:
    """Is answered at once, and not when there is something else to say."""
    async with serving(heartbeat=3600.0) as served, meet(served.address) as peer:
        await served.next()
        async with asyncio.timeout(5):
            await (await peer.ping(b"anybody there?"))


async def test_pings_of_a_peer_that_does_not_read() -> None:
    """Answers do not pile up."""
    async with serving() as served, meet(served.address) as peer:
        ours = await served.next()
        await (await peer.ping(b"anybody there?"))
        peer.transport.pause_reading()
        sending = asyncio.create_task(ours.send([[bytes(8 * MIB)]]))
        await until(lambda: ours._writable is not None)
        held = ours._transport.get_write_buffer_size()
        for _ in range(100):
            for _ in range(100):
                peer.protocol.send_ping(b"x" * 125)
            peer.send_data()
            await asyncio.sleep(0)
        await until(lambda: not peer.transport.get_write_buffer_size())
        assert ours._transport.get_write_buffer_size() <= held
        sending.cancel()


# Ends


async def raw(place: tuple[str, int]) -> socket.socket:
    """A peer that has opened a WebSocket, and does nothing from then on."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, place)
    request = (
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    assert (await loop.sock_recv(sock, 4096)).startswith(b"HTTP/1.1 101 ")
    return sock


@pytest.mark.parametrize("rest", [b"", b"\x82", b"\x82\x85\0\0\0\0\x01", b"\x02\x81\0\0\0\0\x01"])
async def test_a_half_closed_peer(rest: bytes) -> None:
    """One that sends no more is gone; a message it has not finished never was."""
    async with serving() as served:
        with await raw(served.place) as sock:
            ours = await served.next()
            frame = b"\x82\x89\0\0\0\0" + prefixed(b"whole")
            await asyncio.get_running_loop().sock_sendall(sock, frame + rest)
            sock.shutdown(socket.SHUT_WR)
            assert await read(ours, 1) == [b"whole"]
            await lost(ours, "closed")


async def test_serve_ends_when_the_listener_has_closed_and_all_handlers_have_ended() -> None:
    async with serving(handler=echo) as served:
        running = asyncio.create_task(served.listener.serve(echo))
        ours = await dial(served.address)
        await served.listener.aclose()
        await answered(ours)
        assert not running.done()
        await ours.aclose()
        async with asyncio.timeout(10):
            await running
            await served.listener.serve(echo)  # it has closed for good


# Any loop, and no noise


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_what_a_peer_sent_before_it_was_killed(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """TLS, which has taken it from the socket, gives all of it."""

    async def check() -> None:
        async with serving(f"ws+unix://{tmp_path}/s", TLS) as served:
            ours, theirs = await dial(served.address, TLS), await served.next()
            sent = [os.urandom(1000) for _ in range(200)]
            for message in sent:
                await theirs.send([[message]])
            while theirs._transport.get_write_buffer_size():
                await asyncio.sleep(0)
            theirs._transport.abort()
            got: list[bytes] = []
            with contextlib.suppress(ConnectionLost):
                while True:
                    got += map(bytes, await ours.receive())
            assert len(got) == len(sent)
            assert got == sent

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(check())
