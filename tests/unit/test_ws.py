"""The transport `ws`: what it is called, addresses, messages on the wire, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed

import wool_ws
from unit.delegationkit import elsewhere
from unit.wskit import (
    MIB,
    GivenTls,
    answered,
    connected,
    dial,
    echo,
    failing,
    lost,
    read,
    serving,
    until,
)
from wool._transports import delegation, sockets, stream
from wool.abc import ConnectFailed, ConnectionLost, Tls, Transport
from wool.plugins import API
from wool.testing import TransportSuite, throwaway_tls
from wool_ws import Options, _addresses, _transport
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


# The plug-in


def test_the_plugin() -> None:
    (point,) = importlib.metadata.entry_points(group="wool.transports", name="ws")
    assert point.load() is wool_ws
    (plugin,) = wool_ws.wool_transports()
    assert (plugin.name, plugin.api, plugin.options) == ("ws", API, Options)
    assert plugin.capabilities == {"network", "uid", "unix"}
    assert isinstance(plugin.factory(Options()), WebSocketTransport)


def test_the_plugin_is_light() -> None:
    code = "import json, sys, wool_ws; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert {"asyncio", "ssl", "socket", "websockets"} & set(json.loads(done.stdout)) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", ""),
        ("path", "wool"),
        ("path", "/a b"),
        ("path", "/a?b"),
        ("path", "/ü"),
        ("health", "health"),
        ("health", "/"),
        ("keepalive", 0.5),
        ("keepalive_timeout", 0.0),
        ("heartbeat", -1.0),
        ("heartbeat", float("nan")),
        ("keepalive", float("inf")),
        ("keepalive", 32768.0),
        ("keepalive_timeout", 1e12),
    ],
)
def test_options_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Options(**{name: value})


def test_options() -> None:
    Options(path="/a/b-c%20d", health="", keepalive=1, keepalive_timeout=32767, heartbeat=0.1)
    assert Options().path != Options().health


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


async def test_a_listener_chooses_a_free_port_on_this_machine_alone() -> None:
    async with serving() as served, serving("ws://127.0.0.1:0/x") as other:
        assert served.address == f"ws://127.0.0.1:{served.place[1]}/"
        assert other.address == f"ws://127.0.0.1:{other.place[1]}/x"


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "[::]"])
async def test_a_wildcard_is_no_address(host: str) -> None:
    try:
        async with serving(f"ws://{host}:0", handler=echo) as served:
            assert served.place[0] not in {"0.0.0.0", "0", "::", ""}
            await answered(connection := await dial(served.address))
            await connection.aclose()
    except ConnectFailed as error:
        pytest.skip(f"{host}: {error}")  # a machine without IPv6


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, lambda: new_uvloop()])
def test_the_interface_of_a_link_local_address(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """It is looked up whatever the event loop makes of it."""
    index, name = socket.if_nameindex()[0]
    with asyncio.Runner(loop_factory=loop) as runner:
        ((family, place),) = runner.run(sockets.resolve(f"fe80::1%{name}", 7000))
    assert (family, place) == (socket.AF_INET6, ("fe80::1", 7000, 0, index))


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


async def test_a_name_with_several_numbers() -> None:
    """Each is tried. Of `localhost` there may be two, and the listener has one."""
    async with serving("ws://127.0.0.1:0/", handler=echo) as served:
        await answered(connection := await dial(f"ws://localhost:{served.place[1]}/"))
        await connection.aclose()


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


@pytest.mark.parametrize(
    ("hosts", "least"),
    [
        (("127.0.0.2", "127.0.0.1"), None),
        (("127.0.0.2", "127.0.0.3"), 0.45),
        (("127.0.0.3", "127.0.0.2"), 0.95),
    ],
    ids=["another one answers", "no other answers", "no other is left"],
)
async def test_a_name_with_a_number_that_stalls(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], least: float | None
) -> None:
    """It accepts and then says nothing, as where only small packets get through."""

    async def resolve(host: str, port: int) -> list[tuple[int, Any]]:
        return [(socket.AF_INET, (host, port)) for host in hosts]

    loop = asyncio.get_running_loop()
    async with serving("wss://127.0.0.1:0/", TLS, echo) as served:
        port = served.place[1]
        monkeypatch.setattr(sockets, "resolve", resolve)
        with socket.create_server(("127.0.0.2", port)):
            if least is None:
                clock = loop.time  # of which half passes soon, so that both have time enough
                loop.call_later(0.2, setattr, loop, "time", lambda: clock() + 8)
                connection = await dial(f"wss://some.name:{port}/", TLS, timeout=16)
                await answered(connection)
                await connection.aclose()
            else:
                began = loop.time()
                error = await failing(f"wss://some.name:{port}/", TLS, timeout=1)
                assert error.reason == "timeout"
                assert loop.time() - began >= least


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


async def test_port_0_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it another one that somebody may listen at."""
    async with serving("ws://127.0.0.1:0/") as served:
        monkeypatch.setitem(_transport.PORTS, False, served.place[1])
        assert (await failing("ws://127.0.0.1:0/")).reason == "refused"


async def test_small_messages_leave_at_once() -> None:
    async with connected() as ends:
        for end in ends:
            sock = end._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_no_descriptor_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no shortcut, but messages still travel."""

    def fail(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", fail)
    async with serving(None, None, echo) as served:
        ours = await dial(served.address)
        assert not ours.can_send_now()
        await answered(ours)
        await ours.aclose()


# What is known


async def test_what_is_known_of_the_peer() -> None:
    async with connected() as ends:
        for end in ends:
            assert end.extra("peer").startswith("127.0.0.1:")
            assert end.extra("same_host") is True
            assert end.extra("uid") is end.extra("certificate") is None


async def test_what_is_known_of_the_peer_at_a_unix_socket(tmp_path: Path) -> None:
    async with serving(f"ws+unix://{tmp_path}/s") as served:
        ours = await dial(served.address)
        for end in (ours, await served.next()):
            assert end.extra("peer") == "unix socket"
            assert end.extra("same_host") is True
            assert end.extra("uid") == os.geteuid()
        await ours.aclose()


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


async def test_what_another_thread_had_read_as_the_connection_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delegation, "QUIET", 1000)  # that thread may take its time
    async with connected() as (ours, theirs), elsewhere() as there:
        theirs.receive_limit = theirs.max_message_size
        given = list[bytes]()
        pumping = asyncio.ensure_future(theirs.pump(lambda ms: given.extend(map(bytes, ms))))
        await asyncio.sleep(0)
        assert theirs.delegate(there.loop, lambda messages: 0)
        await there.block()
        await ours.send([[b"not taken there"]])
        ours._protocol.send_binary(prefixed(b"in two")[:6], fin=False)
        ours._protocol.send_continuation(b" two", fin=True)
        ours._write()
        there.let()
        while theirs._delegation._read is not None:  # without a turn of this loop
            pass
        theirs.connection_lost(None)
        with pytest.raises(ConnectionLost):
            await pumping
        assert given == [b"not taken there", b"in two"]


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
    """What came before is delivered, and the peer is told."""
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
    """What one read of the loop brings, if he sends without end."""
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


async def test_closing_on_a_silent_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for: neither by who closes, nor by who is cancelled, which is at once."""
    async with serving() as served:
        for patience in (0.05, 1000.0):
            monkeypatch.setattr(stream, "FLUSH", patience)
            with await raw(served.place):
                ours = await served.next()
                closing = asyncio.create_task(ours.aclose())
                if patience > 1:
                    await asyncio.sleep(0)
                    closing.cancel()
                async with asyncio.timeout(10):
                    await asyncio.gather(closing, return_exceptions=True)
                    await ours.aclose()
                await lost(ours)


async def test_closing_in_a_process_that_is_stopped_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is queued still has its time to go out."""
    monkeypatch.setattr(stream, "FLUSH", 0.2)
    monkeypatch.setattr(stream, "LOOKS", 1000)
    async with connected() as (ours, theirs):
        sent = [os.urandom(2 * MIB) for _ in range(8)]
        sending = asyncio.create_task(ours.send([[data] for data in sent]))
        await until(lambda: ours._writable is not None)
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        _, got = await asyncio.gather(ours.aclose(), read(theirs, len(sent)))
        assert got == sent
        await asyncio.gather(sending, return_exceptions=True)


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
    transport = WebSocketTransport(Options())
    listener = await transport.listen(None, credentials=None)
    serving = asyncio.create_task(listener.serve(echo))
    ours = await dial(listener.address)
    await listener.aclose()
    await answered(ours)
    assert not serving.done()
    await ours.aclose()
    async with asyncio.timeout(10):
        await serving
        await listener.serve(echo)  # it has closed for good


# Any loop, and no noise


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_uvloop])
@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_loops(
    loop: Callable[[], asyncio.AbstractEventLoop],
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On all of them the same, and nothing is logged."""
    caplog.set_level(logging.DEBUG, "websockets")
    caplog.set_level(logging.DEBUG, "wool_ws")
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(use(kind, f"ws+unix://{tmp_path}/s" if kind == "unix" else None))
    assert [r for r in caplog.records if r.name != "asyncio"] == []
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def use(kind: str, address: str | None) -> None:
    """A life: large and small messages, a peer that is slow, ends, and failures."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context)
    )
    credentials = TLS if kind == "tls" else None
    async with serving(address, credentials) as served:
        ours = await dial(served.address, credentials)
        theirs = await served.next()
        sent = [b"", b"small", os.urandom(MIB), os.urandom(16 * MIB)]
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            _, got = await asyncio.gather(sender.send([[m] for m in sent]), read(receiver, 4))
            assert got == sent

        async def flood(connection: Any) -> None:
            for _ in range(48):
                await connection.send([[bytes(MIB)]])

        sending = asyncio.create_task(flood(ours))
        await until(lambda: ours._writable is not None and not theirs._reading)
        assert theirs._inbox.waiting < 6 * MIB
        await theirs.send([[b"other way"]])
        assert await read(ours, 1) == [b"other way"]
        await asyncio.gather(sending, read(theirs, 48))
        await ours.aclose()
        await lost(theirs)
        with pytest.raises(ConnectFailed):  # TLS where there is none, or none where there is
            await dial(served.address, None if credentials else TLS)
        stuck = await dial(served.address, credentials)
        await served.next()
        clogged = asyncio.create_task(flood(stuck))
        await until(lambda: stuck._writable is not None)
        await stuck.aclose()
        await asyncio.gather(clogged, return_exceptions=True)
    assert complaints == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_uvloop])
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


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_uvloop])
def test_looking_after_a_peer_that_is_just_going(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """With TLS, uvloop has closed the socket a turn before it says so."""

    async def check() -> None:
        async with connected(TLS) as (ours, theirs):
            ours._transport.abort()
            while not theirs._closed.done():
                assert not theirs._watch.is_silent()
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(check())


async def test_a_silent_peer_takes_no_memory_to_read_into() -> None:
    async with serving(heartbeat=0.1) as served:
        ours, theirs = await dial(served.address), await served.next()
        for message in (b"one", b"another, later"):
            await ours.send([[message]])
            assert await read(theirs, 1) == [message]
            await until(lambda: theirs._room is None)
        await ours.aclose()


async def test_what_taking_the_last_message_raises() -> None:
    """Is told, rather than the end that came along with it."""

    def refuse(messages: object) -> None:
        raise LookupError

    async with connected() as (ours, theirs):
        pumping = asyncio.create_task(theirs.pump(refuse))
        await until(lambda: theirs._inbox._take is not None)
        await ours.send([[b"the last one"]])
        await asyncio.gather(ours.aclose(), pumping, return_exceptions=True)
        assert type(pumping.exception()) is LookupError


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


async def test_the_certificate_is_known(ca: trustme.CA) -> None:
    """Also without verification."""
    shown = ca.issue_cert("worker.example")
    async with serving(None, GivenTls(shows=shown), handler=echo) as served:
        ours = await dial(served.address, GivenTls(verify=False))
        own = ours._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert ours.extra("certificate") == own
        assert own
        await answered(ours)
        await ours.aclose()
