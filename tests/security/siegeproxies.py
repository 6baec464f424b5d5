"""Men in the middle: on the bytes of a TCP connection, with TLS or without, or on messages."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from wool import abc
from wool._plugins.lookup import scheme_transport
from wool._security.certificates import throwaway
from wool._security.tls import ThrowawayChannel, server_context
from wool._worker.transports import Transports
from wool.exceptions import TransportError, WoolError

Rewrite = Callable[[bytes], bytes]


def host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def unverified() -> ssl.SSLContext:
    """A context to dial with that takes any certificate, and speaks HTTP/2 as gRPC wants it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def showing(certificate: abc.Pem, *, http2: bool) -> ssl.SSLContext:
    """A context to listen with that shows this certificate."""
    context = server_context(certificate)
    if http2:
        context.set_alpn_protocols(["h2"])
    return context


def stolen(address: str) -> abc.Pem:
    """The certificate of whoever listens there, with a key that claims to be the one of it.

    Such a key holds the public half that is in the certificate, so OpenSSL takes it, and a private
    half of our own: all the signatures that it makes are wrong.
    """
    certificate = ssl.get_server_certificate(host_and_port(address))
    der = ssl.PEM_cert_to_DER_cert(certificate)
    curve = bytes.fromhex("06082a8648ce3d030107")  # the object identifier of P-256
    start = der.index(curve) + len(curve)
    assert der[start : start + 4] == b"\x03\x42\x00\x04", "it has a public key of another kind"
    point = der[start : start + 68]
    private = b"\x04\x20" + secrets.token_bytes(31).rjust(32, b"\1")
    body = b"\x02\x01\x01" + private + b"\xa0\x0a" + curve + b"\xa1\x44" + point
    text = base64.encodebytes(b"\x30" + bytes([len(body)]) + body)
    key = b"-----BEGIN EC PRIVATE KEY-----\n" + text + b"-----END EC PRIVATE KEY-----\n"
    return abc.Pem(certificate=certificate.encode(), key=key)


class Middle:
    """Somebody between callers and a worker.

    Attributes:
        address: what callers are made to dial.
        up, down: what came from callers, and from the worker, as far as it could be read.
    """

    def __init__(self, address: str, port: int) -> None:
        scheme = urlsplit(address).scheme
        self.address = f"{scheme}://127.0.0.1:{port}"
        self.up = bytearray()
        self.down = bytearray()


@asynccontextmanager
async def forwarding(
    address: str,
    *,
    listens: ssl.SSLContext | None,
    dials: ssl.SSLContext | None,
    drops: int = 0,
) -> AsyncIterator[Middle]:
    """Forwards bytes, and keeps a copy.

    Args:
        listens: ends the TLS of callers; None: passes on what they say.
        dials: with it the worker is dialled by TLS.
        drops: so many connections are closed at the first word instead.
    """
    handlers: set[asyncio.Task[None]] = set()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray
    ) -> None:
        while data := await reader.read(65536):
            copy += data
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal drops
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        writers = [writer]
        try:
            if drops:
                drops -= 1
                await reader.read(1)
                return
            host, port = host_and_port(address)
            up_reader, up_writer = await asyncio.open_connection(host, port, ssl=dials)
            writers.append(up_writer)
            await asyncio.gather(
                pump(reader, up_writer, middle.up), pump(up_reader, writer, middle.down)
            )
        except (OSError, asyncio.CancelledError):
            pass  # either side has hung up, or the test is over
        finally:
            for each in writers:
                each.transport.abort()
            handlers.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=listens)
    middle = Middle(address, server.sockets[0].getsockname()[1])
    try:
        yield middle
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers)
        await asyncio.sleep(0)  # the connections that were aborted learn of it


@asynccontextmanager
async def relaying(
    address: str,
    upward: Rewrite = bytes,
    downward: Rewrite = bytes,
) -> AsyncIterator[Middle]:
    """Passes on messages between callers and a worker, rewritten.

    Callers meet a certificate of its own, or a Unix socket if that is what the worker has.
    """

    async def pump(
        source: abc.Connection, sink: abc.Connection, rewrite: Rewrite, copy: bytearray
    ) -> None:
        while True:
            try:
                messages = [bytes(message) for message in await source.receive()]
            except TransportError:
                await sink.aclose()
                return
            copy += b"".join(messages)
            with suppress(TransportError):  # it may still have something to say
                await sink.send([[rewrite(message)] for message in messages])

    async def handle(caller: abc.Connection) -> None:
        worker = await route.transport.connect(address, credentials=None, timeout=10)
        await asyncio.gather(
            pump(caller, worker, upward, middle.up), pump(worker, caller, downward, middle.down)
        )

    route = Transports({}).routes.to(address)
    async with listening(address, handle, secure=not route.local) as own:
        middle = Middle(address, 0)
        middle.address = own
        yield middle


@asynccontextmanager
async def listening(
    address: str, handle: Callable[[abc.Connection], Awaitable[None]], *, secure: bool
) -> AsyncIterator[str]:
    """Somebody who listens as a worker at `address` would; yields where.

    Args:
        secure: with a certificate of its own making.
    """
    route = Transports({}).routes.to(address)
    place = (
        f"{address}{secrets.token_hex(2)}"
        if route.local
        else f"{scheme_transport(address)}://127.0.0.1:0"
    )
    channel = ThrowawayChannel(throwaway()) if secure else None

    async def guarded(connection: abc.Connection) -> None:
        with suppress(WoolError):
            await handle(connection)

    listener = await route.transport.listen(place, credentials=channel)
    serving = asyncio.create_task(listener.serve(guarded))
    try:
        yield listener.address
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await listener.aclose()
