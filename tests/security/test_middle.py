"""Somebody between a caller and a worker, or in the worker's place."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

import wool
from security.siegekit import (
    RAW,
    TOKEN,
    Table,
    Target,
    besieged,
    calling,
    every_channel,
    every_network,
)
from security.siegepeers import changed, failure, read
from security.siegeproxies import forwarding, listening, relaying, showing, stolen, unverified
from support.jobs import add, mark
from wool import abc
from wool._protocol import frames as f
from wool._security.certificates import throwaway
from wool._security.credentials import Insecure
from wool.exceptions import AuthenticationError, NoWorkersAvailable, WoolError

RECORD_OF_HANDSHAKE, RECORD_OF_DATA = 22, 23
"""First bytes of a TLS record: all that can be told from outside."""


@every_network
@pytest.mark.parametrize("certificate", ["own", "stolen"])
async def test_another_certificate(
    target: Target, table: Table, folder: Path, certificate: str
) -> None:
    """Somebody ends TLS in between, with a certificate of his own, or the worker's without its key.

    He knows all that is said in TLS, and passes it on as it is.
    """
    shown = throwaway() if certificate == "own" else stolen(target.address)
    http2 = target.channel == "grpc"
    dials = unverified()
    if http2:
        dials.set_alpn_protocols(["h2"])
    async with besieged(target):
        listens = showing(shown, http2=http2)
        async with forwarding(target.address, listens=listens, dials=dials) as middle:
            async with calling(middle.address, target.credentials):
                error = await failure(mark(folder, "executed"))
    assert not os.listdir(folder)
    assert type(error) is AuthenticationError
    assert middle.address in str(error) and not RAW.search(str(error))
    read_by_him = bytes(middle.up + middle.down)
    assert b"executed" not in read_by_him and TOKEN.encode() not in read_by_him
    if certificate == "stolen":
        assert not read_by_him
        assert "does not have the key of the certificate" in str(error)
        seen = "a failed TLS handshake, not a byte in it"
    else:
        seen = f"both Hellos, the caller's Proof, a Refuse; {len(read_by_him)} bytes"
    attack = f"man in the middle with {certificate} certificate"
    table.add(attack, target, seen, f"{type(error).__name__}: {error}")


@every_network
async def test_a_middle_that_does_not_end_tls(target: Target, folder: Path) -> None:
    """Can forward, as routers do; he sees that there is TLS and nothing else.

    So the other tests fail for the right reason.
    """
    async with forwarding(target.address, listens=None, dials=None) as middle:
        async with calling(middle.address, target.credentials):
            assert await mark(folder, "executed") == "executed"
    assert os.listdir(folder) == ["executed"]
    for said in (middle.up, middle.down):
        assert said[0] == RECORD_OF_HANDSHAKE
        for word in (b"executed", b"cloudpickle", b"a token", b"GET ", b"PRI * HTTP"):
            assert word not in said


def altered(**fields: object) -> Callable[[bytes], bytes]:
    """Rewrites the Hellos that pass."""

    def rewrite(message: bytes) -> bytes:
        frame = read(message)
        return f.encode(changed(frame, **fields)) if isinstance(frame, f.Hello) else message

    return rewrite


REWRITES: dict[str, object] = {
    "security": Insecure.kind,
    "nonce": bytes(32),
    "protocols": [1, 0],
    "pool": "another",
    "window": 1 << 40,
}


@every_channel
@pytest.mark.parametrize("way", ["upward", "downward"])
async def test_a_rewritten_hello(target: Target, table: Table, folder: Path, way: str) -> None:
    """Nothing that either side says of itself can be changed on the way."""
    dials = None if target.local else target.credentials.client_tls()

    async def rewrite(field: str, value: object) -> None:
        change = altered(**{field: value})
        both = (change, bytes) if way == "upward" else (bytes, change)
        async with relaying(target.address, *both, dials=dials) as middle:
            async with calling(middle.address, target.credentials):
                error = await failure(mark(folder, "executed"))
        assert type(error) is AuthenticationError and not RAW.search(str(error))
        if field in ("security", "nonce"):
            attack = f"man in the middle rewrites `{field}`"
            table.add(attack, target, "a Refuse", f"{type(error).__name__}: {error}")

    async with besieged(target):
        # All at once: a refusal on a network is believed after more than a second only.
        await asyncio.gather(*(rewrite(*each) for each in REWRITES.items()))
    assert not os.listdir(folder)


@every_channel
async def test_a_relay_that_changes_nothing(target: Target, folder: Path) -> None:
    """Within a user's own directory there is nothing to bind to; through TLS no relay gets."""
    dials = None if target.local else target.credentials.client_tls()
    async with relaying(target.address, dials=dials) as middle:
        async with calling(middle.address, target.credentials):
            if target.local:
                assert await mark(folder, "executed") == "executed"
            else:
                assert type(await failure(mark(folder, "executed"))) is AuthenticationError
                assert not os.listdir(folder)


# Downgrades


@every_network
async def test_a_worker_without_tls(target: Target, table: Table) -> None:
    """Somebody at a worker's address who speaks the protocol, but in clear."""
    heard: list[bytes] = []

    async def listen(connection: abc.Connection) -> None:
        while True:
            heard.extend(map(bytes, await connection.receive()))

    async with listening(target.address, listen, secure=False) as address:
        async with forwarding(address, listens=None, dials=None) as middle:
            async with calling(middle.address, target.credentials, patience=3):
                error = await failure(add(1, 2))
    assert heard == []
    assert middle.up[0] == RECORD_OF_HANDSHAKE
    assert b"cloudpickle" not in middle.up and b"a token" not in middle.up
    assert isinstance(error, (AuthenticationError, NoWorkersAvailable))
    assert middle.address in str(error) and not RAW.search(str(error))
    assert "TLS" in str(error)
    table.add(
        "downgrade: plaintext in the worker's place",
        target,
        "a TLS ClientHello",
        f"{type(error).__name__}: {error}",
    )


@every_network
async def test_an_address_that_promises_no_tls(target: Target, table: Table) -> None:
    """A discovery says `ws://` where there is TLS, and all that it gets is TLS."""
    scheme, _, place = target.address.partition("://")
    for claimed in {f"{target.channel}://{place}", f"{scheme}://{place}"}:
        async with forwarding(claimed, listens=None, dials=None) as middle:
            assert middle.address.startswith(claimed.partition("127")[0])
            async with calling(middle.address, target.credentials):
                assert await add(1, 2) == 3
        assert middle.up[0] == RECORD_OF_HANDSHAKE and b"GET " not in middle.up
    table.add("downgrade: discovery that lies", target, "TLS records", "served, over TLS")


@every_network
async def test_a_relay_to_an_insecure_worker(target: Target, folder: Path) -> None:
    """A caller with a token is led to a worker without, by somebody who knows what each wants."""
    with pytest.warns(RuntimeWarning, match="can run code as you"):
        worker = wool.Worker(address=f"{target.channel}://127.0.0.1:0", insecure=True)
    async with worker:
        up, down = altered(security=Insecure.kind), altered(security=target.credentials.kind)
        async with relaying(worker.info.address, up, down) as middle:
            async with calling(middle.address, target.credentials):
                error = await failure(mark(folder, "executed"))
    assert type(error) is AuthenticationError and "could not prove" in str(error)
    assert not os.listdir(folder)


@every_network
@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\xff" * 1000]
)
async def test_somebody_else_at_the_address(target: Target, table: Table, says: bytes) -> None:
    """Not a worker at all; he hears a ClientHello, whatever he says."""
    heard = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        address = f"{target.channel}://127.0.0.1:{port}"
        async with calling(address, target.credentials, patience=0.5):
            error = await failure(add(1, 2))
            while not heard or address not in str(error):  # he was not reached that soon
                error = await failure(add(1, 2))
    assert heard[0] == RECORD_OF_HANDSHAKE and b"cloudpickle" not in heard
    assert isinstance(error, WoolError) and address in str(error)
    assert not RAW.search(str(error))
    answer = f"answers {says[:8]!r}" if says else "hangs up"
    attack = f"downgrade: somebody else {answer}"
    table.add(attack, target, "a TLS ClientHello", f"{type(error).__name__}: {error}")


# Proxies that are meant to end TLS


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "proxy-ca.pem")
    return made


@every_network
@pytest.mark.parametrize("flaw", ["none", "name", "authority", "not announced"])
async def test_a_proxy_that_ends_tls(
    target: Target, table: Table, authority: trustme.CA, tmp_path: Path, folder: Path, flaw: str
) -> None:
    """Is trusted if it is the one that both sides know of, and only then."""
    shown = trustme.CA() if flaw == "authority" else authority
    certificate = shown.issue_cert("other.example" if flaw == "name" else "wool.example")
    pem = abc.Pem(
        certificate=certificate.cert_chain_pems[0].bytes(),
        key=certificate.private_key_pem.bytes(),
    )
    listens = showing(pem, http2=target.channel == "grpc")
    inside = wool.Credentials.token(TOKEN, proxy="wool.example")
    ca = str(tmp_path / "proxy-ca.pem")
    outside = wool.Credentials.token(TOKEN, proxy="wool.example", ca=ca)
    if flaw == "not announced":
        outside = wool.Credentials.token(TOKEN)
    address = f"{target.channel}://127.0.0.1:0"
    async with wool.Worker(address=address, credentials=inside) as worker:
        async with forwarding(worker.info.address, listens=listens, dials=None) as middle:
            async with calling(middle.address, outside):
                if flaw == "none":
                    assert await mark(folder, "executed") == "executed"
                    return
                error = await failure(mark(folder, "executed"))
    assert not os.listdir(folder)
    assert type(error) is AuthenticationError and not RAW.search(str(error))
    said = {"name": "another name|not valid for", "authority": "authorit|issuer|self-signed"}
    assert re.search(said.get(flaw, "through the proxy"), str(error)), str(error)
    attack = f"proxy that ends TLS, wrong {flaw}" if flaw in said else f"proxy {flaw}"
    table.add(attack, target, "no call", f"{type(error).__name__}: {error}")


@every_channel
async def test_what_strangers_say_does_not_steer_terminals(target: Target) -> None:
    """Their words end up in errors, which people print."""
    words = "\x1b]0;title\x07\x1b[2J\r\nall is well\x00\u202e"

    async def refuse(connection: abc.Connection) -> None:
        await connection.receive()
        await connection.send([[f.encode(f.Refuse("authentication", words))]])
        await connection.receive()

    async with listening(target.address, refuse, secure=not target.local) as address:
        async with calling(address, target.credentials):
            error = await failure(add(1, 2))
    assert type(error) is AuthenticationError and str(error).isprintable()
