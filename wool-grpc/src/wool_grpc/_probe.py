"""Bare connections: to choose among addresses, to see a certificate, and to say what is wrong.

gRPC chooses by its own rules, shows no certificates and explains little; Python's own sockets and
TLS do better.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wool._security.tls import client_context
from wool._transports import failures, sockets
from wool.abc import ConnectFailed, Pem, Tls
from wool_grpc._addresses import Address

EXPLAIN = 2.0
"""Seconds that finding out what is wrong may take."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


async def find(places: Sequence[Address], tls: Tls | None, name: str) -> tuple[Address, bytes]:
    """Returns the first of several addresses that answers, and its certificate (DER).

    Raises:
        ConnectFailed: none does, or the certificate is not one that `tls` has us accept.
    """
    place = places[0]
    try:
        if len(places) > 1:
            sock, _ = await sockets.dial([each.where for each in places])
            with sock:
                place = replace(place, host=sock.getpeername()[0])
        if tls is None:
            return place, b""
        _, writer = await _open(place, tls.client_context(), name)
    except OSError as error:
        raise _failed(place, error, name) from None
    await _leave(writer)
    secured = writer.get_extra_info("ssl_object")
    if secured.selected_alpn_protocol() != "h2":
        raise ConnectFailed(f"{place.text}: {_NO_HTTP2}")
    return place, secured.getpeercert(binary_form=True) or b""


async def explain(place: Address, tls: Tls | None) -> ConnectFailed:
    """Returns why no call gets through to `place`."""
    if tls is not None:
        fault = "does not accept ours" if tls.client_pem().certificate else "demands one of us"
        return ConnectFailed(
            f"{place.text} hung up after the TLS handshake: perhaps it {fault}, one of the "
            "certificates has a key that gRPC does not take (it takes RSA, P-256 and P-384), or it "
            "was just ending"
        )
    try:
        async with asyncio.timeout(EXPLAIN):
            return await _greet(place)
    except TimeoutError:
        return ConnectFailed(f"{place.text} took no call, and does not say why")
    except OSError as error:
        return _failed(place, error)


async def _greet(place: Address) -> ConnectFailed:
    """Begins HTTP/2, and looks at the answer; then begins TLS, about which gRPC says nothing."""
    reader, writer = await _open(place)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(_PREFACE)
        answer = await reader.read(9)
    await _leave(writer)
    if answer[3:4] == b"\x04":
        return ConnectFailed(f"{place.text} did not take the call: it may be stopping")
    if answer:
        return ConnectFailed(f"{place.text} does not speak gRPC")
    try:
        _, writer = await _open(place, client_context(Pem(), verify=False))
    except OSError:
        return _closed(place)
    await _leave(writer)
    return ConnectFailed(
        f"{place.text} expects TLS: it was dialled without credentials", reason="tls"
    )


async def _open(
    place: Address, context: ssl.SSLContext | None = None, name: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    asked: dict[str, Any] = {}
    if context is not None:
        with contextlib.suppress(NotImplementedError):
            context.set_alpn_protocols(["h2"])
        asked = {"ssl": context, "server_hostname": name}
    if place.path:
        return await asyncio.open_unix_connection(place.path, **asked)
    return await asyncio.open_connection(place.host, place.port, **asked)


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()  # else asyncio may log why it was closed, if the peer did so


# Reasons -----------------------------------------------------------------------------------------

_NO_HTTP2 = "it speaks TLS, but not gRPC: perhaps it is a worker of another transport, such as ws"

_HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)


def _failed(place: Address, error: OSError, name: str = "") -> ConnectFailed:
    """Returns what to raise for an error of a bare connection."""
    if isinstance(error, _HUNG_UP):
        return _closed(place)
    if "no application protocol" in str(error):
        return ConnectFailed(f"{place.text}: {_NO_HTTP2}")
    if isinstance(error, ssl.SSLError):
        return failures.no_tls(place.text, error, name)
    return failures.not_reached(place.text, error)


def _closed(place: Address) -> ConnectFailed:
    return ConnectFailed(
        f"{place.text} closed the connection at once: it may have too many, or something else "
        "than a worker of Wool is listening",
        reason="refused",
    )
