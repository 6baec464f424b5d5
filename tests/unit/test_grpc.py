"""The transport `grpc`: what the kit cannot know of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from unit.hostkit import link_local
from wool.abc import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    MessageTooLarge,
    Pem,
    Tls,
    Transport,
)
from wool.testing import TransportSuite, throwaway_tls
from wool_grpc import Options, _addresses, _probe, wool_transports
from wool_grpc._addresses import parse
from wool_grpc._connection import MAX_MESSAGE, WRITE, pack, unpack
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


async def echo(connection: Connection) -> None:
    connection.receive_limit = MAX_MESSAGE
    with contextlib.suppress(ConnectionLost):
        while True:
            await connection.send([[message] for message in await connection.receive()])


async def answered(connection: Connection, message: bytes = b"hello") -> None:
    async with asyncio.timeout(10):
        await connection.send([[message]])
        assert [bytes(m) for m in await connection.receive()] == [message]


async def received(connection: Connection, messages: list[bytes]) -> None:
    got: list[bytes] = []
    async with asyncio.timeout(10):
        while len(got) < len(messages):
            got += map(bytes, await connection.receive())
    assert got == messages


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


class Served:
    """A listener that is being served; connections that are not echoed are kept."""

    def __init__(self, listener: Any, task: asyncio.Task[None]) -> None:
        self.listener = listener
        self.address: str = listener.address
        self.task = task
        self.pipes: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def place(self) -> tuple[str, int]:
        place = parse(self.address)
        return place.host, place.port


@contextlib.asynccontextmanager
async def serving(
    transport: Transport,
    address: str | None = None,
    credentials: Tls | None = None,
    *,
    keep: bool = False,
) -> AsyncIterator[Served]:
    async def handle(connection: Connection) -> None:
        if not keep:
            await echo(connection)
            return
        served.pipes.put_nowait(connection)
        await asyncio.get_running_loop().create_future()

    listener = await transport.listen(address, credentials=credentials)
    served = Served(listener, asyncio.create_task(listener.serve(handle)))
    try:
        yield served
    finally:
        served.task.cancel()
        await asyncio.gather(served.task, return_exceptions=True)


async def dial(
    transport: Transport, address: str, credentials: Tls | None = None, timeout: float = 10
) -> Any:
    connection = await transport.connect(address, credentials=credentials, timeout=timeout)
    connection.receive_limit = MAX_MESSAGE
    return connection


async def failing(attempt: Awaitable[Any]) -> tuple[str, str]:
    """Reason and text of a failure, in words of Wool's."""
    with pytest.raises(ConnectFailed) as raised:
        await attempt
    text = str(raised.value)
    for foreign in ("grpc_", "ssl.", "{", "errno", "tsi_", "statuscode", "_ssl", "openssl"):
        assert foreign not in text.lower()
    return raised.value.reason, text


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


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


def test_the_plugin() -> None:
    (plugin,) = wool_transports()
    assert (plugin.name, plugin.options) == ("grpc", Options)
    assert plugin.capabilities == {"network", "unix"}
    assert isinstance(plugin.factory(Options()), GrpcTransport)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keepalive", 0),
        ("keepalive_timeout", -1.0),
        ("keepalive", float("nan")),
        ("max_connections", -1),
        ("window", 1000),
        ("window", 1 << 30),
    ],
)
def test_options_that_make_no_sense(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(Options(), **{name: value})


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


FORK = """
import asyncio, gc, os, sys
import wool
import wool_grpc
from wool_grpc._transport import GrpcTransport


async def attempt(kind):
    try:
        if kind == "dial":
            await transport.connect(listener.address, credentials=None, timeout=5)
        else:
            await transport.listen(None, credentials=None)
    except wool.WoolError as error:
        print(kind, "fork" in str(error) and "spawn" in str(error), flush=True)


async def handle(connection):
    await connection.receive()


async def main():
    global transport, listener
    transport = GrpcTransport(wool_grpc.Options())
    listener = await transport.listen(None, credentials=None)
    serving = asyncio.ensure_future(listener.serve(handle))
    connection = await transport.connect(listener.address, credentials=None, timeout=5)
    child = os.fork()
    if not child:
        gc.disable()  # what is the parent's cannot be collected here
        asyncio._set_running_loop(None)
        for kind in "dial", "listen":
            asyncio.run(attempt(kind))
        os._exit(7)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    print("child", os.waitstatus_to_exitcode(status))
    await connection.send([[b"still here"]])
    serving.cancel()


asyncio.run(main())
"""


def test_a_forked_child() -> None:
    """It is told, instead of waiting for ever, and its parent goes on."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "dial True\nlisten True\nchild 7\n"), done.stderr


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


@pytest.mark.parametrize("address", [None, "grpc://[::1]:0", "grpc://localhost:0"])
async def test_places_on_the_loopback(address: str | None) -> None:
    transport = GrpcTransport(Options())
    async with serving(transport, address) as served:
        assert served.address.rpartition(":")[0] == (address or "grpc://127.0.0.1:0")[:-2]
        connection = await dial(transport, served.address)
        await answered(connection)
        assert connection.extra("peer").endswith(served.address.rpartition(":")[2])
        assert connection.extra("same_host") is True
        assert connection.extra("uid", "unknown") == "unknown"
        assert connection.extra("certificate") is None
        await connection.aclose()


def test_who_is_on_this_host() -> None:
    def same(text: str) -> bool:
        return _addresses.same_host(_addresses.peer_of(text))

    assert same("unix:") and same("ipv6:%5B::ffff:127.0.0.1%5D:80") and same("ipv4:127.1.2.3:80")
    assert not same("ipv4:192.0.2.7:80") and not same("ipv6:%5B2001:db8::7%5D:80")


@pytest.mark.parametrize("wildcard", ["grpc://0.0.0.0:0", "grpc://0:0", "grpc://[::]:0"])
async def test_a_wildcard(wildcard: str) -> None:
    """The address is one that others can dial."""
    transport = GrpcTransport(Options())
    async with serving(transport, wildcard) as served:
        host, port = served.place
        assert host not in ("0.0.0.0", "0", "::") and port
        for address in (served.address, f"grpc://127.0.0.1:{port}"):
            connection = await dial(transport, address)
            await answered(connection)
            await connection.aclose()


async def test_a_port_that_is_taken() -> None:
    """By anybody, also by one who would share it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        _, text = await failing(GrpcTransport(Options()).listen(address, credentials=None))
        assert text == f"cannot listen at {address}: Address already in use"


async def test_sockets_that_are_in_the_way(tmp_path: Path) -> None:
    """Of one who has died: it is replaced. Something else: it stays."""
    transport = GrpcTransport(Options())
    dead, file = tmp_path / "dead", tmp_path / "file"
    file.write_text("precious")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    async with serving(transport, f"grpc+unix://{dead}") as served:
        await (await dial(transport, served.address)).aclose()
        await failing(transport.listen(served.address, credentials=None))
        await (await dial(transport, served.address)).aclose()
    assert not dead.exists()
    await failing(transport.listen(f"grpc+unix://{file}", credentials=None))
    assert file.read_text() == "precious"


async def test_nobody_listens(tmp_path: Path) -> None:
    transport = GrpcTransport(Options())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        free = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        for address in (free, f"grpc+unix://{tmp_path}/nothing"):
            reason, text = await failing(dial(transport, address))
            assert reason == "refused"
            assert text.startswith(f"{address} cannot be reached: ")


async def test_a_name_that_nobody_has() -> None:
    reason, text = await failing(dial(GrpcTransport(Options()), "grpc://no.such.host.invalid:80"))
    assert reason == "unknown"
    assert "'no.such.host.invalid' cannot be resolved" in text


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
    async with serving(transport, None, credentials) as served:
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
    async with serving(transport) as served:
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


def framed(*messages: bytes) -> bytes:
    return b"".join(pack([[message] for message in messages], [*map(len, messages)]))


@given(st.lists(st.lists(st.sampled_from((0, 1, 60, 200_000, 300_000)), max_size=2), max_size=6))
def test_what_is_written(sizes: list[list[int]]) -> None:
    """No write is too large; each has whole messages, and together they are all of them."""
    batch = [[bytes([i + 1]) * size for size in each] for i, each in enumerate(sizes)]
    messages = [b"".join(segments) for segments in batch if sum(map(len, segments)) <= MAX_MESSAGE]
    writes = list(pack([[message] for message in messages], [*map(len, messages)]))
    assert all(0 < len(data) <= WRITE for data in writes)
    assert [bytes(m) for data in writes for m in unpack(data, MAX_MESSAGE)] == messages


def test_the_limit_of_what_is_accepted() -> None:
    """What comes before is good."""
    unpacking = unpack(framed(b"x" * 10, b"y" * 10) + (11).to_bytes(4, "little"), 10)
    assert [bytes(next(unpacking)), bytes(next(unpacking))] == [b"x" * 10, b"y" * 10]
    with pytest.raises(MessageTooLarge):
        next(unpacking)


@pytest.mark.parametrize("data", [framed(b"hello")[:-1], b"\1\0\0"])
async def test_writes_that_are_no_messages(data: bytes) -> None:
    """End the connection of whoever sends them."""
    async with serving(GrpcTransport(Options()), keep=True) as served:
        async with raw_channel(served) as channel:
            stream = channel.stream_stream(METHOD)()
            await stream.write(data)
            assert "part of a message" in await lost(await served.pipes.get())
            stream.cancel()


async def test_a_write_that_is_too_large_for_a_stranger() -> None:
    """Ends the connection of whoever sends it."""
    transport = GrpcTransport(Options())
    async with serving(transport, keep=True) as served:
        async with raw_channel(served) as channel:
            stream = channel.stream_stream(METHOD)()
            await stream.write(bytes(WRITE + 1))
            accepted = await served.pipes.get()
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
    async with serving(transport, keep=True) as served, Wire(served.place) as wire:
        connection = await dial(transport, wire.address)
        accepted = await served.pipes.get()
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


@contextlib.contextmanager
def process(code: str, *args: str) -> Iterator[Any]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    pipe = subprocess.PIPE
    running = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


STUCK = """
    import asyncio, ctypes
    from wool_grpc import Options
    from wool_grpc._transport import GrpcTransport

    async def handle(connection):
        while True:
            for message in await connection.receive():
                if bytes(message) == b"hold the GIL":
                    print("held", flush=True)
                    ctypes.PyDLL(None).getchar()
                await connection.send([[message]])

    async def main():
        listener = await GrpcTransport(Options()).listen(None, credentials=None)
        print(listener.address, flush=True)
        await listener.serve(handle)

    asyncio.run(main())
"""


async def test_many_peers_of_one_whose_code_holds_the_gil() -> None:
    """However much they send meanwhile, the thread that answers for it never waits for Python."""
    transport = GrpcTransport(Options())
    with process(STUCK) as stuck:
        address = (await asyncio.to_thread(stuck.stdout.readline)).strip()
        dialling = (dial(transport, address, timeout=30) for _ in range(350))
        first, *others = await asyncio.gather(*dialling)
        await first.send([[b"hold the GIL"]])
        await asyncio.to_thread(stuck.stdout.readline)
        for connection in others:
            await connection.send([[b"more"]])
        for _ in range(5):  # not all has arrived when the first one does
            await greeted(parse(address).host, parse(address).port)
        stuck.stdin.write("\n")
        stuck.stdin.flush()
        await received(first, [b"hold the GIL"])
        for connection in others:
            await received(connection, [b"more"])
        await asyncio.gather(*(connection.aclose() for connection in (first, *others)))


async def greeted(host: str, port: int) -> None:
    """Returns when it has answered to the beginning of HTTP/2."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(_probe._PREFACE)
        await reader.readexactly(9)
        writer.transport.abort()


# Loops and tasks ---------------------------------------------------------------------------------


LOOPS = """
    import asyncio, gc, os, sys, threading, uvloop
    from wool.abc import ConnectionLost
    from wool_grpc import Options
    from wool_grpc._transport import GrpcTransport

    TRANSPORT = GrpcTransport(Options())
    kept = []

    async def echo(connection):
        connection.receive_limit = 1 << 24
        try:
            while True:
                await connection.send([[m] for m in await connection.receive()])
        except ConnectionLost:
            ENDED.release()

    async def serve():
        global ADDRESS
        listener = await TRANSPORT.listen(None, credentials=None)
        ADDRESS = listener.address
        READY.release()
        serving = asyncio.ensure_future(listener.serve(echo))
        await asyncio.to_thread(STOP.acquire)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    def serve_on(make):
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(serve())

    async def visit(busy, keep):
        connection = await TRANSPORT.connect(ADDRESS, credentials=None, timeout=10)
        connection.receive_limit = 1 << 24
        await connection.send([[b"hello"]])
        assert [bytes(m) for m in await connection.receive()] == [b"hello"]
        if busy:
            kept.append(asyncio.ensure_future(connection.receive()))
            kept.append(asyncio.ensure_future(connection.send([[bytes(500_000)]] * 8)))
            await asyncio.sleep(0)
        if keep:
            kept.append(connection)

    def end(make, how, busy):
        if how == "run":
            with asyncio.Runner(loop_factory=make) as runner:
                runner.run(visit(busy, False))
        else:
            loop = make()
            loop.run_until_complete(visit(busy, how == "keep"))
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False  # it is the test's own
                del task
            loop.close()
        kept.clear()
        gc.collect()

    for make in (asyncio.new_event_loop, uvloop.new_event_loop):
        READY, STOP, ENDED = (threading.Semaphore(0) for _ in range(3))
        server = threading.Thread(target=serve_on, args=(make,))
        server.start()
        READY.acquire()
        for visitor in (asyncio.new_event_loop, uvloop.new_event_loop):
            for how in ("run", "close", "keep"):
                for busy in (False, True):
                    thread = threading.Thread(target=end, args=(visitor, how, busy))
                    thread.start()
                    thread.join()
                    assert ENDED.acquire(timeout=30), (visitor, how, busy)
        STOP.release()
        server.join()
    print("fine")
"""


def test_loops_that_end_while_others_go_on() -> None:
    """However they do, and whatever is under way: the other side is told, and nobody complains."""
    assert silent(python(LOOPS)) == "fine\n"


def test_loops_that_end_with_a_listener() -> None:
    """Without a word; and another one can listen where it was."""
    code = """
        import asyncio
        from wool_grpc import Options
        from wool_grpc._transport import GrpcTransport

        async def main(address):
            transport = GrpcTransport(Options())
            listener = await transport.listen(address, credentials=None)
            async def handle(connection):
                await connection.send([[b"hello"]])
                await connection.receive()
            serving = asyncio.ensure_future(listener.serve(handle))
            connection = await transport.connect(listener.address, credentials=None, timeout=5)
            await connection.receive()
            return listener.address

        address = asyncio.run(main(None))
        assert asyncio.run(main(address)) == address
    """
    silent(python(code))


async def test_closing_when_it_is_cancelled() -> None:
    """Then the end comes at once, without waiting for the peer."""
    transport = GrpcTransport(Options())
    async with serving(transport, keep=True) as served:
        for turns in range(4):
            connection = await dial(transport, served.address)
            accepted = await served.pipes.get()
            sending = asyncio.ensure_future(connection.send([[bytes(MAX_MESSAGE)]] * 32))
            await asyncio.sleep(0.01)
            closing = asyncio.ensure_future(connection.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await connection.aclose()
            with pytest.raises(ConnectionLost):
                await sending
            await lost(accepted)


async def test_more_than_a_thousand_at_once() -> None:
    """gRPC would cancel some by itself. They come in groups, as few strangers may wait."""
    transport = GrpcTransport(Options())
    async with serving(transport) as served:
        connections: list[Connection] = []
        for _ in range(11):
            dialling = (dial(transport, served.address, timeout=30) for _ in range(100))
            connections += await asyncio.gather(*dialling)
        await asyncio.gather(*(connection.send([[b"x"]]) for connection in connections))
        await asyncio.gather(*(connection.receive() for connection in connections))
        await asyncio.gather(*(connection.aclose() for connection in connections))


# TLS ---------------------------------------------------------------------------------------------

AUTHORITY, OTHER = trustme.CA(), trustme.CA()


def pem_of(certificate: trustme.LeafCert | None, authority: trustme.CA | None = AUTHORITY) -> Pem:
    return Pem(
        certificate=certificate and b"".join(c.bytes() for c in certificate.cert_chain_pems),
        key=certificate and certificate.private_key_pem.bytes(),
        authorities=authority and authority.cert_pem.bytes(),
    )


@dataclass
class FakeTls(Tls):
    """TLS with certificates of the test's own."""

    pem: Pem
    verify: bool = True
    server_name: str | None = None
    asks_client: bool = False

    def server_context(self) -> ssl.SSLContext:
        raise AssertionError("of no use to gRPC")

    def client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif self.pem.authorities:
            context.load_verify_locations(cadata=self.pem.authorities.decode())
        if self.pem.certificate and self.pem.key:
            path = f"/tmp/{os.getpid()}-{id(self)}.pem"
            Path(path).write_bytes(self.pem.certificate + self.pem.key)
            context.load_cert_chain(path)
            os.unlink(path)
        return context

    def server_pem(self) -> Pem:
        return self.pem if self.asks_client else replace(self.pem, authorities=None)

    def client_pem(self) -> Pem:
        return self.pem


LOCAL = AUTHORITY.issue_cert("localhost", "127.0.0.1", "::1")
TRUSTING = FakeTls(pem_of(None))


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
    async with serving(transport, address, FakeTls(pem_of(LOCAL))) as served:
        connection = await dial(transport, served.address, replace(TRUSTING, server_name=name))
        await answered(connection, bytes(500_000))
        assert connection.extra("certificate") == ssl.PEM_cert_to_DER_cert(
            LOCAL.cert_chain_pems[0].bytes().decode()
        )
        await connection.aclose()


async def test_a_name_that_ends_with_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """That says that it is complete, and is not in certificates."""
    transport, leaf = GrpcTransport(Options()), AUTHORITY.issue_cert("node.example")
    here = {name: ["127.0.0.1"] for name in ("node.example.", "other.example")}
    async with serving(transport, None, FakeTls(pem_of(leaf))) as served:
        port = served.address.rpartition(":")[2]
        for name, host in ((None, "node.example."), ("node.example.", "other.example")):
            asked = replace(TRUSTING, server_name=name)
            with names(monkeypatch, here):
                connection = await dial(transport, f"grpc://{host}:{port}", asked)
            await answered(connection)
            await connection.aclose()


async def test_a_link_local_address() -> None:
    """The interface belongs to the address, and not to the name in a certificate."""
    transport, host = GrpcTransport(Options()), link_local()
    leaf = AUTHORITY.issue_cert(host.partition("%")[0])
    for secured in (False, True):
        listening = FakeTls(pem_of(leaf)) if secured else None
        async with serving(transport, f"grpc://[{host}]:0", listening) as served:
            assert served.address.startswith(f"grpc://[{host}]:")
            connection = await dial(transport, served.address, TRUSTING if secured else None)
            await answered(connection)
            await connection.aclose()


async def test_tls_over_a_unix_socket(tmp_path: Path) -> None:
    transport = GrpcTransport(Options())
    address = f"grpc+unix://{tmp_path}/socket"
    async with serving(transport, address, FakeTls(pem_of(LOCAL))) as served:
        connection = await dial(transport, address, TRUSTING)
        await answered(connection)
        assert connection.extra("peer") == "unix socket"
        await failing(dial(transport, served.address, FakeTls(pem_of(None, OTHER))))
        await connection.aclose()


YEARS = {
    "not_before": dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
    "not_after": dt.datetime(2002, 1, 1, tzinfo=dt.UTC),
}
LATER = {
    "not_before": dt.datetime(2101, 1, 1, tzinfo=dt.UTC),
    "not_after": dt.datetime(2102, 1, 1, tzinfo=dt.UTC),
}


@pytest.mark.parametrize(
    ("listening", "dialling", "what"),
    [
        (FakeTls(pem_of(AUTHORITY.issue_cert("localhost", **YEARS))), TRUSTING, "has expired"),
        (FakeTls(pem_of(AUTHORITY.issue_cert("localhost", **LATER))), TRUSTING, "not valid yet"),
        (FakeTls(pem_of(LOCAL)), FakeTls(pem_of(None, OTHER)), "none of the authorities"),
        (FakeTls(pem_of(LOCAL)), FakeTls(pem_of(None, None)), "none of the authorities"),
        (FakeTls(throwaway_tls().server_pem()), TRUSTING, "signed by itself"),
        (FakeTls(pem_of(LOCAL)), replace(TRUSTING, server_name="other.name"), "'other.name'"),
        (FakeTls(pem_of(AUTHORITY.issue_cert("x.y"))), TRUSTING, "another name than 'localhost'"),
        (
            FakeTls(pem_of(LOCAL), asks_client=True),
            TRUSTING,
            "perhaps it demands one of us",
        ),
        (
            FakeTls(pem_of(LOCAL), asks_client=True),
            FakeTls(pem_of(OTHER.issue_cert("caller"))),
            "perhaps it does not accept ours",
        ),
        (
            FakeTls(pem_of(LOCAL), asks_client=True),
            FakeTls(pem_of(AUTHORITY.issue_cert("caller", **YEARS))),
            "perhaps it does not accept ours",
        ),
        (FakeTls(pem_of(LOCAL)), None, "expects TLS: it was dialled without credentials"),
        (None, TRUSTING, "does not speak TLS, which the credentials demand"),
        (None, FakeTls(pem_of(None), verify=False), "does not speak TLS"),
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
    async with serving(transport, "grpc://localhost:0", listening, keep=True) as served:
        reason, text = await failing(dial(transport, served.address, dialling))
        unsure = "perhaps" in what or "does not speak TLS" in what
        assert reason == ("unknown" if unsure else "tls")
        assert text.startswith(served.address)
        assert what in text
        assert served.pipes.empty()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_tls_without_grpc(protocols: list[str]) -> None:
    """Such as that of a worker of another transport: nobody is told of certificates."""
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


def odd_leaf(kind: str) -> Pem:
    """A certificate of `AUTHORITY` whose key is of a kind that gRPC does not take."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    signing: Any = serialization.load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    key = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "Ed25519"
        else ec.generate_private_key(ec.SECP521R1())
    )
    now = dt.datetime.now(dt.UTC)
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


@pytest.mark.parametrize("kind", ["Ed25519", "secp521r1"])
async def test_keys_that_grpc_does_not_take(kind: str) -> None:
    """Python's TLS does, so nothing else would tell."""
    transport, odd, good = GrpcTransport(Options()), odd_leaf(kind), pem_of(LOCAL)
    for pems, whose in (((odd, good), "its"), ((good, odd), "our")):
        listening, dialling = (FakeTls(pem, asks_client=True) for pem in pems)
        async with serving(transport, "grpc://localhost:0", listening) as served:
            reason, text = await failing(dial(transport, served.address, dialling))
            assert reason == "tls"
            assert f"gRPC does not take the key of {whose} certificate ({kind})" in text


async def test_mutual_tls() -> None:
    transport = GrpcTransport(Options())
    listening = FakeTls(pem_of(LOCAL), asks_client=True)
    async with serving(transport, None, listening) as served:
        caller = FakeTls(pem_of(AUTHORITY.issue_cert("caller")))
        connection = await dial(transport, served.address, caller)
        await answered(connection)
        await connection.aclose()


class Torn(FakeTls):
    """Its files are being replaced."""

    def server_pem(self) -> Pem:
        if self.torn:
            raise OSError("half a file")
        return super().server_pem()

    torn = False


async def test_certificates_that_are_being_replaced() -> None:
    """What was good stays, until what follows is whole."""
    transport, listening = GrpcTransport(Options()), Torn(pem_of(LOCAL))
    async with serving(transport, None, listening) as served:
        listening.torn = True
        first = await dial(transport, served.address, TRUSTING)
        await answered(first)
        listening.torn, listening.pem = False, pem_of(OTHER.issue_cert("127.0.0.1"))
        second = await dial(transport, served.address, FakeTls(pem_of(None, OTHER)))
        await answered(second)
        assert first.extra("certificate") != second.extra("certificate")
        listening.pem = Pem(certificate=b"nonsense", key=b"more of it")
        third = await dial(transport, served.address, FakeTls(pem_of(None, OTHER)))
        for connection in (first, second, third):
            await answered(connection)
            await connection.aclose()


async def test_a_certificate_that_is_no_good() -> None:
    nonsense = FakeTls(Pem(certificate=b"nonsense", key=b"more of it"))
    listening = GrpcTransport(Options()).listen(None, credentials=nonsense)
    assert "certificate is bad" in (await failing(listening))[1]


@pytest.mark.parametrize("verify", [False, True])
async def test_somebody_in_between_who_shows_another_certificate_later(verify: bool) -> None:
    """The one that is told is the one whose key is used: gRPC insists on it."""
    transport = GrpcTransport(Options())
    shown, real = (FakeTls(throwaway_tls().server_pem()) for _ in range(2))
    dialling = FakeTls(Pem(), verify=False)
    if verify:
        shown, dialling = FakeTls(pem_of(LOCAL)), TRUSTING
    async with (
        serving(transport, None, shown) as first,
        serving(transport, None, real, keep=True) as second,
        Wire(first.place, second.place) as wire,
    ):
        reason, _ = await failing(dial(transport, wire.address, dialling))
        assert reason == ("tls" if verify else "unknown")  # it may have been replaced
        assert second.pipes.empty()


# Health ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
async def test_probes_of_its_health(secured: bool, caplog: pytest.LogCaptureFixture) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    ask, states = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    transport = GrpcTransport(Options())
    tls = FakeTls(pem_of(LOCAL)) if secured else None
    channel_tls = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes()) if secured else None
    async with (
        serving(transport, None, tls) as served,
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


async def stranger(place: tuple[str, int], says: bytes = b"") -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, place)
    await asyncio.get_running_loop().sock_sendall(sock, says)
    return sock


async def test_more_connections_than_it_may_have() -> None:
    """Are refused, and others are let in when there is room."""
    transport = GrpcTransport(Options(max_connections=3))
    async with serving(transport) as served:
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


EXHAUSTED = """
import asyncio, os, resource, sys
from wool.abc import ConnectFailed
from wool_grpc import Options
from wool_grpc._transport import GrpcTransport

async def main():
    transport, opened = GrpcTransport(Options()), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for _ in range(8):
        for attempt in (transport.connect(sys.argv[1], credentials=None, timeout=5),
                        transport.listen(sys.argv[1] + "2", credentials=None)):
            try:
                await attempt
            except ConnectFailed as error:
                print(str(error).rpartition(": ")[2])
        os.close(opened.pop())

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere other numbers of files are needed")
async def test_no_files_to_start_grpc_with(tmp_path: Path) -> None:
    """It would end the process without a word."""
    async with serving(GrpcTransport(Options()), f"grpc+unix://{tmp_path}/socket") as served:
        done = await asyncio.to_thread(python, EXHAUSTED, served.address)
        assert silent(done) == "Too many open files\n" * 16


async def test_what_a_stranger_can_make_us_hold() -> None:
    """Little, even in small messages that nobody receives."""
    transport = GrpcTransport(Options())
    async with serving(transport, keep=True) as served, raw_channel(served) as channel:
        stream = channel.stream_stream(METHOD)()
        data = framed(*[bytes(4000)] * 16)
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 64 << 20:
                async with asyncio.timeout(0.5):
                    await asyncio.shield(stream.write(data))
                written += len(data)
        accepted = await served.pipes.get()
        assert accepted._inbox.waiting <= 200_000
        assert written <= 2 * Options().window
        stream.cancel()
