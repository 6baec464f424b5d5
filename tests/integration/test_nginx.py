"""The transport `ws` through nginx, which ends TLS on one port and forwards paths to workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import wool
from support.jobs import add
from support.network import free_port
from support.serving import TOKEN
from support.tls import given
from support.transports import answered, echo, lost, read
from unit.wskit import MIB, dial, failing, serving
from wool.abc import ConnectionLost
from wool_ws import Options

READ_TIMEOUT = 1.0
"""Seconds after which an `impatient` nginx drops an idle connection; by default it is 60."""

ATTEMPTS = 3
"""Times that a connection may be lost: an end that stalls for longer gives no signs of life."""

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        proxy_http_version 1.1;
        proxy_read_timeout {timeout}s;
        location /work1/ {{
            proxy_pass http://127.0.0.1:{worker};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
        location /dull/ {{
            proxy_pass http://127.0.0.1:{worker}/work1/;
        }}
        location /duller/ {{
            proxy_http_version 1.0;
            proxy_pass http://127.0.0.1:{worker}/work1/;
        }}
    }}
}}
"""


class Nginx:
    """An nginx of our own.

    Attributes:
        address: where it listens, as `host:port`.
        worker: the port it forwards to.
        process: its process.
    """

    def __init__(self, folder: Path, ca: trustme.CA, timeout: float) -> None:
        binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            missing = pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip
            missing("nginx is missing: install it, with `apt-get install nginx` on Debian")
        certificate = ca.issue_cert("127.0.0.1")
        (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (folder / "certificate.pem").write_bytes(
            b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        )
        port = self.worker = free_port()
        while self.worker == port:
            self.worker = free_port()
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=folder, port=port, worker=self.worker, timeout=f"{timeout:g}"
            )
        )
        self.address = f"127.0.0.1:{port}"
        self._folder = folder
        self.process = subprocess.Popen(
            [binary, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(port)

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.01)
        self.close()
        log = self._folder / "error.log"
        pytest.fail(f"nginx did not start: {log.read_text() if log.exists() else 'no log'}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def nginx(tmp_path: Path, ca: trustme.CA) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path, ca, 60.0)
    yield nginx
    nginx.close()


@pytest.fixture
def impatient(tmp_path: Path, ca: trustme.CA) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path, ca, READ_TIMEOUT)
    yield nginx
    nginx.close()


@asynccontextmanager
async def through(
    nginx: Nginx, ca: trustme.CA, handler: Any = None, *, ours: float = 20, theirs: float = 20
) -> AsyncIterator[tuple[Any, Any]]:
    """A connection to a worker through nginx, and the worker; with their heartbeats in seconds."""
    worker = f"ws://127.0.0.1:{nginx.worker}/work1/"
    async with serving(worker, None, handler, heartbeat=theirs) as served:
        address = f"wss://{nginx.address}/work1/"
        connection = await dial(address, given(trusts=ca), heartbeat=ours)
        try:
            yield connection, served
        finally:
            await connection.aclose()


async def test_messages(nginx: Nginx, ca: trustme.CA) -> None:
    """Of all sizes, and 64 MiB both ways at once."""
    async with through(nginx, ca) as (ours, served):
        theirs = await served.next()
        batch = [os.urandom(size) for size in (0, 1, 125, 126, 4096, 65_535, 65_536, MIB, 16 * MIB)]
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            sending = sender.send([[data] for data in batch])
            _, got = await asyncio.gather(sending, read(receiver, len(batch)))
            assert got == batch
        chunk = os.urandom(256 << 10)

        async def stream(connection: Any) -> None:
            for number in range(256):
                await connection.send([[number.to_bytes(4, "big"), chunk]])

        *_, there, back = await asyncio.gather(
            stream(ours), stream(theirs), read(theirs, 256), read(ours, 256)
        )
        expected = [number.to_bytes(4, "big") + chunk for number in range(256)]
        assert there == expected
        assert back == expected


async def test_what_is_known(nginx: Nginx, ca: trustme.CA) -> None:
    """The certificate is the proxy's; the worker is not told that its peer is next door."""
    async with through(nginx, ca) as (ours, served):
        theirs = await served.next()
        assert ours.extra("certificate")
        assert theirs.extra("certificate") is None
        assert theirs.extra("same_host") is None
        assert theirs.extra("peer").startswith("127.0.0.1:")


@pytest.mark.parametrize(("ours", "theirs"), [(0.2, 3600), (3600, 0.2), (0.2, 0.2)])
async def test_an_idle_connection_stays(
    impatient: Nginx, ca: trustme.CA, ours: float, theirs: float
) -> None:
    """As long as one of the two ends gives signs of life."""
    for attempt in range(ATTEMPTS):
        async with through(impatient, ca, echo, ours=ours, theirs=theirs) as (connection, _):
            try:
                await answered(connection)
                waiting = asyncio.create_task(connection.receive())
                await asyncio.wait([waiting], timeout=2.5 * READ_TIMEOUT)
                if waiting.done():
                    pytest.fail(f"received {await waiting!r}")
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await answered(connection)
                return
            except ConnectionLost:
                if attempt == ATTEMPTS - 1:
                    raise


async def test_nginx_drops_idle_connections(impatient: Nginx, ca: trustme.CA) -> None:
    """Else the test above would show nothing. By default we are earlier than nginx by default."""
    assert Options().heartbeat < 60 / 2
    async with through(impatient, ca, ours=3600, theirs=3600) as (ours, served):
        theirs = await served.next()
        await asyncio.gather(lost(ours), lost(theirs))


async def test_nginx_is_killed(nginx: Nginx, ca: trustme.CA) -> None:
    """Both ends notice."""
    async with through(nginx, ca) as (ours, served):
        theirs = await served.next()
        nginx.close()
        await asyncio.gather(lost(ours), lost(theirs))
        error = await failing(f"wss://{nginx.address}/work1/", given(trusts=ca))
        assert error.reason == "refused"


async def test_a_worker_that_is_down(nginx: Nginx, ca: trustme.CA) -> None:
    error = await failing(f"wss://{nginx.address}/work1/", given(trusts=ca))
    assert error.reason == "refused"
    assert "the proxy there does not reach the worker (HTTP 502 Bad Gateway)" in str(error)


# Calls, with a token ------------------------------------------------------------------------------


@wool.routine
async def talk() -> AsyncGenerator[int, str]:
    """A stream that needs the connection it began on."""
    answer = 0
    while (yield answer) != "enough":
        answer += 1


async def behind(nginx: Nginx, start: Any, **variables: str) -> str:
    """Starts `wool worker` behind nginx; returns the address that it advertises."""
    address = f"wss://{nginx.address}/work1/"
    place = f"ws://127.0.0.1:{nginx.worker}/work1/"
    served = start("--address", place, "--advertise", address, **variables)
    assert await served.address() == address
    return address


@pytest.fixture
def proxied(ca: trustme.CA, tmp_path: Path) -> wool.Credentials:
    """The credentials of callers that know of the proxy."""
    ca.cert_pem.write_to_path(tmp_path / "proxy-ca.pem")
    authority = str(tmp_path / "proxy-ca.pem")
    return wool.Credentials.token(TOKEN, proxy="127.0.0.1", ca=authority)


async def test_calls_with_a_token(impatient: Nginx, start: Any, proxied: wool.Credentials) -> None:
    """Also after longer silence than nginx allows, on the connection that there was."""
    beat = {"WOOL_WS__HEARTBEAT": "0.2"}
    address = await behind(impatient, start, WOOL_TLS__PROXY="127.0.0.1", **beat)
    async with wool.WorkerPool(discovery=[address], credentials=proxied) as pool:
        assert await add(1, 2) == 3
        assert [worker.address for worker in pool.workers] == [address]
        for attempt in range(ATTEMPTS):
            async with aclosing(talk()) as stream:
                try:
                    assert await anext(stream) == 0
                    await asyncio.sleep(2.5 * READ_TIMEOUT)
                    assert await anext(stream) == 1
                    break
                except wool.WorkerLost:
                    if attempt == ATTEMPTS - 1:
                        raise
        assert await add(3, 4) == 7


@pytest.mark.parametrize("who", ["caller", "worker"])
async def test_a_proxy_that_one_side_does_not_know_of(
    nginx: Nginx, start: Any, proxied: wool.Credentials, who: str
) -> None:
    """Is explained to whoever calls, and nothing runs."""
    name = "127.0.0.1" if who == "caller" else "other.example"
    address = await behind(nginx, start, WOOL_TLS__PROXY=name)
    credentials = wool.Credentials.token(TOKEN) if who == "caller" else proxied
    pool = wool.WorkerPool(discovery=[address], credentials=credentials, quorum_timeout=10)

    async def use() -> None:
        async with pool:
            await add(1, 2)

    with pytest.raises(wool.AuthenticationError, match="through the proxy") as caught:
        await use()
    assert address in str(caught.value)
