"""TLS and HTTP below the transport `ws`: paths, health, and what users are told when it fails."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.tls import GivenTls, given
from support.transports import answered, echo, lost
from unit.hostkit import link_local
from unit.wskit import answering, dial, failing, serving
from wool.abc import ConnectFailed, Tls
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def foreign() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> Tls:
    """What a listener on this machine has."""
    return given(shows=ca.issue_cert("127.0.0.1", "worker.example"))


# Security is a matter of credentials, not of addresses


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_credentials_mean_tls(ca: trustme.CA, server: Tls, scheme: str) -> None:
    """Whatever the address says: nobody can talk us out of it."""
    async with serving(f"{scheme}://127.0.0.1:0", server, echo) as served:
        assert served.address.startswith("wss://")
        _, _, rest = served.address.partition("://")
        ours = await dial(f"{scheme}://{rest}", given(trusts=ca))
        assert ours._transport.get_extra_info("ssl_object") is not None
        await answered(ours)
        await ours.aclose()


async def test_a_link_local_address(ca: trustme.CA) -> None:
    """The interface belongs to the address, and not to the name in a certificate."""
    host = link_local()
    server = given(shows=ca.issue_cert(host.partition("%")[0]))
    async with serving(f"ws://[{host}]:0", server, echo) as served:
        assert served.address.startswith(f"wss://[{host}]:")
        ours = await dial(served.address, given(trusts=ca))
        await answered(ours)
        await ours.aclose()


async def test_an_address_that_needs_credentials() -> None:
    """It is not even dialled."""
    error = await failing("wss://no.such.host.invalid/")
    assert error.reason == "tls"
    assert "credentials" in str(error)
    with pytest.raises(ConnectFailed, match="credentials"):
        await WebSocketTransport(Options()).listen("wss://127.0.0.1:0", credentials=None)


async def test_tls_over_a_unix_socket(ca: trustme.CA, tmp_path: Path) -> None:
    """The name to verify is that of the credentials, or `localhost`."""
    for name in ("worker.example", None):
        tls = given(shows=ca.issue_cert(name or "localhost"))
        async with serving(f"ws+unix://{tmp_path}/{name}", tls, echo) as served:
            ours = await dial(served.address, given(trusts=ca, server_name=name))
            await answered(ours)
            await ours.aclose()


# TLS that fails


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ("expired", "has expired"),
        ("authority", "signed by none of the authorities"),
        ("name", "another name than 'other.example'"),
        ("host", "another address than '127.0.0.1'"),
    ],
)
async def test_listeners_that_are_not_trusted(
    ca: trustme.CA, foreign: trustme.CA, server: GivenTls, flaw: str, says: str
) -> None:
    if flaw == "expired":
        then = NOW - dt.timedelta(days=1)
        server = given(shows=ca.issue_cert("127.0.0.1", not_after=then))
    elif flaw == "host":
        server = given(shows=ca.issue_cert("worker.example"))
    ours = given(
        trusts=foreign if flaw == "authority" else ca,
        server_name="other.example" if flaw == "name" else None,
    )
    async with serving(None, server) as served:
        error = await failing(served.address, ours)
        assert error.reason == "tls"
        with pytest.raises(ConnectFailed, match=f"certificate is not accepted.*({says})"):
            raise error
        assert served.connections.empty()


@pytest.mark.parametrize("flaw", ["none", "foreign"])
async def test_a_listener_that_does_not_trust_us(
    ca: trustme.CA, foreign: trustme.CA, flaw: str
) -> None:
    """TLS 1.3 tells when the handshake is over already, and asyncio does not tell at all."""
    asks = given(shows=ca.issue_cert("127.0.0.1"), trusts=ca, asks_client=True)
    shows = None if flaw == "none" else foreign.issue_cert("me@example.org")
    async with serving(None, asks, echo) as served:
        error = await failing(served.address, given(shows=shows, trusts=ca))
        assert error.reason in ("tls", "unknown")  # its alert may get lost as it hangs up
        assert "certificate" in str(error)
        good = given(shows=ca.issue_cert("me@example.org"), trusts=ca)
        await answered(ours := await dial(served.address, good))
        await ours.aclose()


async def test_tls_spoken_to_a_server_that_answers_in_clear(ca: trustme.CA) -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as place:
        error = await failing(f"wss://{place}", given(trusts=ca))
        assert error.reason == "unknown"
        assert "does not speak TLS" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 400 Bad Request\r\n\r\n<h1>The plain HTTP request was sent to HTTPS port</h1>",
        b"HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ],
)
async def test_no_tls_spoken_to_a_server_that_needs_it(answer: bytes) -> None:
    """An alert of TLS, nginx, and Go."""
    async with answering(answer) as place:
        error = await failing(f"ws://{place}")
        assert error.reason == "tls"
        assert "credentials" in str(error)


async def test_a_silent_tls_server(ca: trustme.CA) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = "wss://127.0.0.1:%d" % listening.getsockname()[1]
        error = await failing(address, given(trusts=ca), timeout=0.2)
        assert error.reason == "timeout"


# HTTP that fails


def reply(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        (
            reply("404 Not Found"),
            "refused",
            "nobody listens at the path /there .HTTP 404 Not Found",
        ),
        (reply("502 Bad Gateway", body="x" * 100_000), "refused", "proxy.*HTTP 502.*does it run"),
        (reply("503 Service Unavailable"), "refused", "proxy.*HTTP 503"),
        (reply("504 Gateway Time-out"), "refused", "proxy.*HTTP 504"),
        (reply("301 Moved", "Location: wss://x/y"), "unknown", "moved to wss://x/y"),
        (reply("302 Found"), "unknown", "not a WebSocket server.*HTTP 302"),
        (reply("403 Forbidden"), "unknown", "denies us .HTTP 403"),
        (reply("401 Unauthorized"), "unknown", "denies us .HTTP 401"),
        (reply("426 Upgrade Required"), "unknown", "pass on the headers Upgrade"),
        (reply("200 OK", body="hello"), "unknown", "not a WebSocket server; it answered HTTP 200"),
        (reply("101 Switching"), "unknown", "not a WebSocket server"),
        (
            reply(
                "101 Switching",
                *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: no"),
            ),
            "unknown",
            "not a WebSocket server",
        ),
        (b"HTTP/1.1 500 No Length\r\n\r\nuntil the end", "unknown", "HTTP 500 No Length"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "unknown", "HTTP/1.0 502 Bad Gateway"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "unknown", "not a WebSocket server: .*SSH"),
        (reply("505 Version"), "unknown", "must speak HTTP/1.1"),
        (b"\x1b[31m\r\n", "unknown", r"not a WebSocket server: .*\?\[31m"),
        (b"\0\1\2\3\n", "unknown", "not a WebSocket server"),
        (b"HTTP/1.1 101 Swi", "unknown", "not a WebSocket server: connection closed"),
        (b"", "unknown", "hung up on a request without TLS"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000, "unknown", "not a WebSocket server"),
    ],
)
async def test_answers_that_are_none(answer: bytes, reason: str, says: str) -> None:
    async with answering(answer) as place:
        error = await failing(f"ws://{place}/there")
        assert error.reason == reason
        with pytest.raises(ConnectFailed, match=says):
            raise error


@pytest.mark.parametrize("secured", [True, False], ids=["tls", "clear"])
@pytest.mark.parametrize("begins", [False, True])
async def test_a_worker_that_is_killed_while_it_is_dialled(
    ca: trustme.CA, begins: bool, secured: bool
) -> None:
    """That it hung up in between says nothing for sure: it may be back soon."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if begins:
            await reader.read(1)
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    error = await failing(f"ws://{place}/", given(trusts=ca) if secured else None)
    assert error.reason == "unknown"
    assert "hung up" in str(error)


async def test_an_endless_answer() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20)) as place:
        await failing(f"ws://{place}/there")


async def test_a_place_that_cannot_be_listened_at(tmp_path: Path) -> None:
    for address in (
        "ws://192.0.2.77:1",
        f"ws+unix://{tmp_path}/no/such/folder",
        f"ws+unix:///{'x' * 200}",
    ):
        with pytest.raises(ConnectFailed, match="cannot listen at ws"):
            await WebSocketTransport(Options()).listen(address, credentials=None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(ConnectFailed, match="in use$"):  # which Python has more words for
            await WebSocketTransport(Options()).listen(address, credentials=None)


# Paths and health


async def test_a_listener_has_one_path() -> None:
    async with serving("ws://127.0.0.1:0/a/b", handler=echo) as served:
        assert served.address.endswith("/a/b")
        await answered(ours := await dial(served.address))
        await ours.aclose()
        for path in ("", "/", "/a", "/a/b/", "/A/B"):
            error = await failing(served.address.removesuffix("/a/b") + path)
            assert error.reason == "refused"
            assert f"path {path or '/'} (HTTP 404" in str(error)


async def refused(address: str, **options: Any) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as raised:
        await dial(address, **options)
    assert raised.value.reason == "refused"
    return raised.value


@asynccontextmanager
async def asked(place: tuple[str, int], request: str, tls: Any = None) -> AsyncIterator[str]:
    """What is answered to an HTTP request."""
    reader, writer = await asyncio.open_connection(*place, ssl=tls)
    writer.write(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    async with asyncio.timeout(10):
        yield (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("secured", [False, True])
async def test_health(ca: trustme.CA, server: Tls, version: str, secured: bool) -> None:
    """Anybody may ask, and is told that and nothing else."""
    tls = given(trusts=ca).client_context() if secured else None
    async with serving(None, server if secured else None, echo) as served:
        for method, body in (("GET", "ok\n"), ("HEAD", "")):
            request = f"{method} /health HTTP/{version}\nHost: x"
            async with asked(served.place, request, tls) as answer:
                head, _, rest = answer.partition("\r\n\r\n")
                assert head.startswith("HTTP/1.1 200 OK\r\n")
                assert "Content-Length: 3\r\n" in head
                assert "Server" not in head
                assert rest == body
        request = f"GET /nowhere HTTP/{version}\nHost: x"
        async with asked(served.place, request, tls) as answer:
            assert answer.startswith("HTTP/1.1 404 ")
        request = f"GET / HTTP/{version}\nHost: x"
        async with asked(served.place, request, tls) as answer:
            assert answer.startswith("HTTP/1.1 426 " if version == "1.1" else "HTTP/1.1 505 ")


async def test_browsers_do_not_get_in() -> None:
    """A page of somebody's must not reach a worker that trusts its machine."""
    async with serving() as served:
        with pytest.raises(InvalidStatus, match="403"):
            await connect(served.address, proxy=None, origin="https://example.org")  # type: ignore[arg-type]
        assert served.connections.empty()


async def test_no_compression_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is used, whoever offers it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving() as served:
        ours = await dial(served.address)
        theirs = await served.next()
        async with connect(served.address, proxy=None, compression="deflate"):
            compressing = await served.next()
            for end in (ours, theirs, compressing):
                assert end._protocol.extensions == []
        await ours.aclose()
        await lost(theirs)
