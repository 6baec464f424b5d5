"""Somebody between a caller and a worker, or in the worker's place."""

from __future__ import annotations

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
from wool.exceptions import AuthenticationError, NoWorkersAvailable

RECORD_OF_HANDSHAKE, RECORD_OF_DATA = 22, 23
"""First bytes of a TLS record: all that can be told from outside."""


@every_network
@pytest.mark.parametrize("certificate", ["own", "stolen"])
async def test_another_certificate(target: Target, folder: Path, certificate: str) -> None:
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


# Downgrades


@every_network
async def test_a_worker_without_tls(target: Target) -> None:
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


@every_network
async def test_an_address_that_promises_no_tls(target: Target) -> None:
    """A discovery says `ws://` where there is TLS, and all that it gets is TLS."""
    scheme, _, place = target.address.partition("://")
    for claimed in {f"{target.channel}://{place}", f"{scheme}://{place}"}:
        async with forwarding(claimed, listens=None, dials=None) as middle:
            assert middle.address.startswith(claimed.partition("127")[0])
            async with calling(middle.address, target.credentials):
                assert await add(1, 2) == 3
        assert middle.up[0] == RECORD_OF_HANDSHAKE and b"GET " not in middle.up


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


# Proxies that are meant to end TLS


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "proxy-ca.pem")
    return made


@every_network
@pytest.mark.parametrize("flaw", ["none", "name", "authority", "not announced"])
async def test_a_proxy_that_ends_tls(
    target: Target, authority: trustme.CA, tmp_path: Path, folder: Path, flaw: str
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
