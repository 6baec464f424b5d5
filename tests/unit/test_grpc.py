"""The transport `grpc`: what the kit cannot know of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.tls import GivenTls, given
from support.transports import Served, answered, dial, echo, read, serving, stranger
from wool._transports.stream import pack
from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    Pem,
    Tls,
    Transport,
)
from wool.testing import TransportSuite, throwaway_tls
from wool_grpc import Options, _addresses, _probe
from wool_grpc._addresses import parse
from wool_grpc._connection import WRITE
from wool_grpc._library import aio, grpc
from wool_grpc._transport import GrpcTransport

METHOD = "/wool.Transport/Connect"
QUICK = Options(keepalive=0.3, keepalive_timeout=0.3)


@pytest.fixture(autouse=True)
def _explain_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe, "EXPLAIN", 30.0)  # also on a machine that stalls


class TestUnix(TransportSuite):
    def transport(self) -> Transport:
        return GrpcTransport(Options())

    def address(self, tmp_path: Path) -> str:
        return f"grpc+unix://{tmp_path}/socket"


class TestTcp(TransportSuite):
    def transport(self) -> Transport:
        return GrpcTransport(Options())

    def credentials(self) -> Tls:
        return throwaway_tls()


# Helpers -----------------------------------------------------------------------------------------


async def lost(connection: Connection, seconds: float = 10) -> str:
    async with asyncio.timeout(seconds):
        with pytest.raises(ConnectionLost) as raised:
            while True:
                await connection.receive()
    with pytest.raises(ConnectionLost):
        await connection.send([[b"x"]])
    return str(raised.value)


@contextlib.asynccontextmanager
async def raw_channel(served: Served, credentials: Any = None) -> AsyncIterator[Any]:
    """A channel of gRPC's, without our limits."""
    target, options = parse(served.address).target, [("grpc.max_send_message_length", -1)]
    if credentials is None:
        channel = aio.insecure_channel(target, options=options)
    else:
        channel = aio.secure_channel(target, credentials, options=options)
    async with channel:
        yield channel


async def failing(attempt: Awaitable[Any]) -> tuple[str, str]:
    """Reason and text of a failure, in words of Wool's."""
    with pytest.raises(ConnectFailed) as raised:
        await attempt
    text = str(raised.value)
    for foreign in ("grpc_", "ssl.", "{", "errno", "tsi_", "statuscode", "_ssl", "openssl"):
        assert foreign not in text.lower()
    return raised.value.reason, text


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs a program, with warnings as errors and all checks of asyncio on."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        timeout=50,
    )


def silent(done: subprocess.CompletedProcess[str]) -> str:
    # asyncio's debug mode reports whatever takes 0.1 s, and on a busy machine anything may.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, said) == (0, []), done.stderr
    return done.stdout


# The plug-in -------------------------------------------------------------------------------------


def test_what_is_imported_and_when() -> None:
    """gRPC when the transport is made, its health service when it is asked; it logs nothing."""
    code = """
        import os, sys
        import wool_grpc
        (plugin,) = wool_grpc.wool_transports()
        assert "grpc" not in sys.modules and "cryptography" not in sys.modules
        plugin.factory(wool_grpc.Options())
        assert "grpc.aio" in sys.modules
        assert not [m for m in ("google.protobuf", "grpc_health.v1", "cryptography")
                    if m in sys.modules]
        assert not wool_grpc._library.CHOICES.keys() & os.environ.keys()
    """
    silent(python(code))


# Addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("grpc://127.0.0.1:80", "127.0.0.1", 80, "ipv4:127.0.0.1:80"),
        ("grpc://[::1]:1", "::1", 1, "ipv6:[::1]:1"),
        ("grpc://some.host:65535/", "some.host", 65535, None),
        ("grpc+unix:///a/b c", "", 0, "unix:/a/b c"),
    ],
)
def test_addresses(text: str, host: str, port: int, target: str | None) -> None:
    place = parse(text)
    assert (place.host, place.port) == (host, port)
    assert target is None or place.target == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "grpc://",
        "grpc://host",
        "grpc://host:",
        "grpc://:80",
        "grpc://host:65536",
        "grpc://host:80/path",
        "grpc://user@host:80",
        "grpc://::1:80",
        "grpc://[host]:80",
        "http://host:80",
        "grpc+unix://relative",
        "grpc+unix:///" + "x" * 100,
        "dns:///host:80",
    ],
)
async def test_addresses_that_are_none(text: str) -> None:
    transport = GrpcTransport(Options())
    await failing(transport.connect(text, credentials=None, timeout=1))
    if text:
        await failing(transport.listen(text, credentials=None))


def test_who_is_on_this_host() -> None:
    def same(text: str) -> bool:
        return bool(_addresses.known(_addresses.peer_of(text))["same_host"])

    assert same("unix:") and same("ipv6:%5B::ffff:127.0.0.1%5D:80") and same("ipv4:127.1.2.3:80")
    assert not same("ipv4:192.0.2.7:80") and not same("ipv6:%5B2001:db8::7%5D:80")


async def test_a_port_that_is_taken() -> None:
    """By anybody, also by one who would share it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        _, text = await failing(GrpcTransport(Options()).listen(address, credentials=None))
        assert text == f"cannot listen at {address}: Address already in use"


async def test_a_socket_that_is_in_the_way(tmp_path: Path) -> None:
    """It stays, whatever it is."""
    transport, file = GrpcTransport(Options()), tmp_path / "file"
    file.write_text("precious")
    _, text = await failing(transport.listen(f"grpc+unix://{file}", credentials=None))
    assert text.endswith("Address already in use")
    assert file.read_text() == "precious"


async def test_nobody_listens(tmp_path: Path) -> None:
    transport = GrpcTransport(Options())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        free = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        for address in (free, f"grpc+unix://{tmp_path}/nothing"):
            reason, text = await failing(dial(transport, address))
            assert reason == "refused"
            assert text == f"{address}: nobody listens there"


async def test_a_name_that_nobody_has() -> None:
    reason, text = await failing(dial(GrpcTransport(Options()), "grpc://no.such.host.invalid:80"))
    assert reason == "unknown"
    assert "there is no host of that name" in text


@contextlib.contextmanager
def names(monkeypatch: pytest.MonkeyPatch, hosts: dict[str, list[str]]) -> Iterator[None]:
    """Gives names addresses."""
    loop = asyncio.get_running_loop()
    ask = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **how: Any) -> Any:
        found = [await ask(each, port, **how) for each in hosts.get(host, [host])]
        return [entry for each in found for entry in each]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "getaddrinfo", getaddrinfo)
        yield


@pytest.mark.parametrize("secured", [False, True])
async def test_a_name_with_several_addresses(
    monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    """The first that answers is used, whatever the others do; else the reason is told."""
    transport, credentials = GrpcTransport(Options()), throwaway_tls() if secured else None
    hosts = ["127.0.0.2", "192.0.2.1", "127.0.0.1"]  # refuses; is nowhere; answers
    async with serving(transport, None, credentials, handler=echo) as served:
        name = served.address.replace("127.0.0.1", "some.name")
        with names(monkeypatch, {"some.name": hosts}):
            connection = await dial(transport, name, credentials)
            await answered(connection)
            await connection.aclose()
            hosts.remove("127.0.0.1")
            assert (await failing(dial(transport, name, credentials, timeout=0.5)))[0] != "tls"
    with names(monkeypatch, {"some.name": ["127.0.0.2", "127.0.0.3"]}):
        assert (await failing(dial(transport, name, credentials)))[0] == "refused"


async def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are not used."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    transport = GrpcTransport(Options())
    async with serving(transport, handler=echo) as served:
        connection = await dial(transport, served.address.replace("127.0.0.1", "localhost"))
        await answered(connection)
        await connection.aclose()


async def test_servers_of_something_else() -> None:
    """gRPC without our service, and a listener that takes the call and hangs up."""
    server = aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _, text = await failing(dial(GrpcTransport(Options()), f"grpc://127.0.0.1:{port}"))
    assert "not a worker of Wool" in text
    await server.stop(None)


# Writes ------------------------------------------------------------------------------------------


async def test_a_write_that_is_too_large_for_a_stranger() -> None:
    """Ends the connection of whoever sends it."""
    transport = GrpcTransport(Options())
    async with serving(transport) as served:
        async with raw_channel(served) as channel:
            stream = channel.stream_stream(METHOD)()
            await stream.write(bytes(WRITE + 1))
            accepted = await served.next(stranger=True)
            await lost(accepted)
            with pytest.raises(aio.AioRpcError):
                while await stream.read() is not aio.EOF:
                    pass


# Whoever does not keep up, or is silent ----------------------------------------------------------


class Wire:
    """A TCP proxy, to be cut without a word.

    Args:
        places: where the first, second, … connection goes, and all after the last.
    """

    def __init__(self, *places: tuple[str, int]) -> None:
        self._places = list(places)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"grpc://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = self._places.pop(0) if len(self._places) > 1 else self._places[0]
        other_reader, other_writer = await asyncio.open_connection(*place)
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()

    def cut(self) -> None:
        self._open.clear()


@pytest.mark.parametrize("busy", [False, True])
async def test_a_partition_of_the_network(busy: bool) -> None:
    """Both sides notice within the bound, with data under way and without."""
    transport = GrpcTransport(QUICK)
    async with serving(transport) as served, Wire(served.place) as wire:
        connection = await dial(transport, wire.address)
        accepted = await served.next(stranger=True)
        await connection.send([[b"x"]])
        await accepted.receive()
        wire.cut()
        if busy:
            for end in (connection, accepted):
                await end.send([[bytes(100_000)]])
        texts = await asyncio.gather(lost(connection, 20), lost(accepted, 20))
        assert "sign of life" in texts[0]
        for end in (connection, accepted):
            await end.aclose()


# Loops and tasks ---------------------------------------------------------------------------------


async def test_more_than_a_thousand_at_once() -> None:
    """gRPC would cancel some by itself. They come in groups, as few strangers may wait."""
    transport = GrpcTransport(Options())
    async with serving(transport, handler=echo) as served:
        connections: list[Connection] = []
        for _ in range(11):
            dialling = (dial(transport, served.address, timeout=30) for _ in range(100))
            connections += await asyncio.gather(*dialling)
        await asyncio.gather(*(connection.send([[b"x"]]) for connection in connections))
        await asyncio.gather(*(connection.receive() for connection in connections))
        await asyncio.gather(*(connection.aclose() for connection in connections))


async def test_a_handler_sets_its_limit_before_anything_is_read() -> None:
    """Also where messages have arrived while the listener's loop was busy."""
    transport = GrpcTransport(Options())

    async def send(address: str) -> Any:
        connection = await dial(transport, address)
        await connection.send([[bytes(500_000)]] * 5)  # returns once three have been written
        sent.set()
        assert await read(connection, 5) == [bytes(500_000)] * 5
        await connection.aclose()

    sent = threading.Event()
    async with serving(transport, handler=echo) as served:
        await asyncio.sleep(0)  # it serves
        sending = asyncio.create_task(asyncio.to_thread(asyncio.run, send(served.address)))
        await asyncio.sleep(0)  # it has begun
        assert sent.wait(30)  # the loop stands still meanwhile
        await sending


# TLS ---------------------------------------------------------------------------------------------

AUTHORITY, OTHER = trustme.CA(), trustme.CA()


def tls(
    shows: trustme.LeafCert | None = None, trusts: trustme.CA | None = AUTHORITY, **more: Any
) -> GivenTls:
    return given(shows, trusts, **more)


LOCAL = AUTHORITY.issue_cert("localhost", "127.0.0.1", "::1")
TRUSTING = tls()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("grpc://127.0.0.1:0", None),
        ("grpc://[::1]:0", None),
        ("grpc://localhost:0", None),
        ("grpc://127.0.0.1:0", "localhost"),
    ],
)
async def test_names_that_are_verified(address: str, name: str | None) -> None:
    transport = GrpcTransport(Options())
    async with serving(transport, address, tls(LOCAL), handler=echo) as served:
        connection = await dial(transport, served.address, replace(TRUSTING, server_name=name))
        await answered(connection, bytes(500_000))
        assert connection.extra("certificate") == ssl.PEM_cert_to_DER_cert(
            LOCAL.cert_chain_pems[0].bytes().decode()
        )
        await connection.aclose()


async def test_tls_over_a_unix_socket(tmp_path: Path) -> None:
    transport = GrpcTransport(Options())
    address = f"grpc+unix://{tmp_path}/socket"
    async with serving(transport, address, tls(LOCAL), handler=echo) as served:
        connection = await dial(transport, address, TRUSTING)
        await answered(connection)
        assert connection.extra("peer") == "unix socket"
        await failing(dial(transport, served.address, tls(None, OTHER)))
        await connection.aclose()


@pytest.mark.parametrize(
    ("listening", "dialling", "what"),
    [
        (tls(LOCAL), tls(None, OTHER), "none of the authorities"),
        (tls(LOCAL), replace(TRUSTING, server_name="other.name"), "'other.name'"),
        (tls(AUTHORITY.issue_cert("x.y")), TRUSTING, "another name than 'localhost'"),
        (
            tls(LOCAL, asks_client=True),
            TRUSTING,
            "perhaps it demands one of us",
        ),
        (
            tls(LOCAL, asks_client=True),
            tls(OTHER.issue_cert("caller")),
            "perhaps it does not accept ours",
        ),
        (tls(LOCAL), None, "expects TLS: it was dialled without credentials"),
        (None, TRUSTING, "does not speak TLS"),
    ],
)
async def test_tls_that_fails(
    listening: Tls | None,
    dialling: Tls | None,
    what: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Says why, in our words, and nothing else is said; the listener goes on."""
    transport = GrpcTransport(Options())
    async with serving(transport, "grpc://localhost:0", listening) as served:
        reason, text = await failing(dial(transport, served.address, dialling))
        unsure = "perhaps" in what or "does not speak TLS" in what
        assert reason == ("unknown" if unsure else "tls")
        assert text.startswith(served.address)
        assert what in text
        assert served.connections.empty()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_tls_without_grpc(protocols: list[str]) -> None:
    """A worker of another transport has it: nobody is told of certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    LOCAL.configure_cert(context)
    context.set_alpn_protocols(protocols)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        reason, text = await failing(
            dial(GrpcTransport(Options()), f"grpc://localhost:{port}", TRUSTING)
        )
    assert (reason, "it speaks TLS, but not gRPC" in text) == ("unknown", True), text


def odd_leaf() -> Pem:
    """A certificate of `AUTHORITY` with a key of Ed25519."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    signing: Any = serialization.load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    key, now = ed25519.Ed25519PrivateKey.generate(), dt.datetime.now(dt.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(signing, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    how = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Pem(
        certificate=leaf.public_bytes(encoding),
        key=key.private_bytes(encoding, *how),
        authorities=AUTHORITY.cert_pem.bytes(),
    )


async def test_keys_that_grpc_does_not_take() -> None:
    """Python's TLS does, so nothing else would tell."""
    transport, odd, good = GrpcTransport(Options()), odd_leaf(), tls(LOCAL).pem
    for pems in ((odd, good), (good, odd)):
        listening, dialling = (GivenTls(pem, asks_client=True) for pem in pems)
        async with serving(transport, "grpc://localhost:0", listening, handler=echo) as served:
            _, text = await failing(dial(transport, served.address, dialling))
            assert "a key that gRPC does not take" in text


async def test_a_certificate_that_is_no_good() -> None:
    nonsense = GivenTls(Pem(certificate=b"nonsense", key=b"more of it"))
    listening = GrpcTransport(Options()).listen(None, credentials=nonsense)
    assert "certificate is bad" in (await failing(listening))[1]


@pytest.mark.parametrize("verify", [False, True])
async def test_somebody_in_between_who_shows_another_certificate_later(verify: bool) -> None:
    """The one that is told is the one whose key is used: gRPC insists on it."""
    transport = GrpcTransport(Options())
    shown, real = (GivenTls(throwaway_tls().server_pem()) for _ in range(2))
    dialling = GivenTls(Pem(), verify=False)
    if verify:
        shown, dialling = tls(LOCAL), TRUSTING
    async with (
        serving(transport, None, shown, handler=echo) as first,
        serving(transport, None, real) as second,
        Wire(first.place, second.place) as wire,
    ):
        reason, _ = await failing(dial(transport, wire.address, dialling))
        assert reason == "unknown"  # it may have been replaced
        assert second.connections.empty()


# Health ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
async def test_probes_of_its_health(secured: bool, caplog: pytest.LogCaptureFixture) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    ask, states = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    transport = GrpcTransport(Options())
    listens = tls(LOCAL) if secured else None
    channel_tls = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes()) if secured else None
    async with (
        serving(transport, None, listens, handler=echo) as served,
        raw_channel(served, channel_tls) as channel,
        raw_channel(served, channel_tls) as another,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "wool.Transport"):
            assert (await stub.Check(ask(service=service))).status == states.SERVING
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.Check(ask(service="something else"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        check = another.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(aio.AioRpcError) as raised:
            await check(b"\xff\xff\xff")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        connection = await dial(transport, served.address, TRUSTING if secured else None)
        nothing = stub.Watch(ask(service="something else"))
        assert (await nothing.read()).status == states.SERVICE_UNKNOWN
        nothing.cancel()
        watch = stub.Watch(ask(service="wool.Transport"))
        assert (await watch.read()).status == states.SERVING
        await served.listener.aclose()
        assert (await watch.read()).status == states.NOT_SERVING
        await answered(connection)
        with pytest.raises(aio.AioRpcError):
            await stub.Check(ask())
        watch.cancel()
        await connection.aclose()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Strangers ---------------------------------------------------------------------------------------


async def test_more_connections_than_it_may_have() -> None:
    """Are refused, and others are let in when there is room."""
    transport = GrpcTransport(Options(max_connections=3))
    async with serving(transport, handler=echo) as served:
        socks = [await stranger(served.place) for _ in range(2)]
        connection = await dial(transport, served.address)
        await answered(connection)
        reason, text = await failing(dial(transport, served.address))
        assert reason == "refused"
        assert "it may have too many" in text
        for sock in socks:
            sock.close()

        async def try_again() -> Any:
            while True:
                with contextlib.suppress(ConnectFailed):
                    return await dial(transport, served.address)

        async with asyncio.timeout(30):
            another = await try_again()
        for each in (connection, another):
            await answered(each)
            await each.aclose()


async def test_what_a_stranger_can_make_us_hold() -> None:
    """Little, even in small messages that nobody receives."""
    transport = GrpcTransport(Options())
    async with serving(transport) as served, raw_channel(served) as channel:
        stream = channel.stream_stream(METHOD)()
        data = b"".join(pack([[bytes(4000)]] * 16, WRITE))
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 64 << 20:
                async with asyncio.timeout(0.5):
                    await asyncio.shield(stream.write(data))
                written += len(data)
        accepted = await served.next(stranger=True)
        assert accepted._inbox.waiting <= 200_000
        assert written <= 2 * Options().window
        stream.cancel()


async def test_what_is_left_of_a_connection_needs_no_collection_of_garbage() -> None:
    transport, gone = GrpcTransport(Options()), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with serving(transport) as served:
        gc.disable()
        try:
            connection: Any = await dial(transport, served.address)
            weakref.finalize(connection._stream, loop.call_soon_threadsafe, gone.set)
            connection._stream.abort()
            del connection
            async with asyncio.timeout(10):
                await gone.wait()
        finally:
            gc.enable()
