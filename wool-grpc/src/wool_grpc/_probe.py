"""Bare connections: to choose among addresses, to see a certificate, and to say what is wrong.

gRPC chooses by its own rules, shows no certificates and explains little; Python's own sockets and
TLS do better.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Literal

from wool.abc import ConnectFailed, Tls
from wool_grpc._addresses import Address
from wool_grpc._tls import odd_key

HEAD_START = 0.25
"""Seconds that one address has before the next is tried as well (RFC 8305)."""

EXPLAIN = 2.0
"""Seconds that finding out what is wrong may take."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def find(places: Sequence[Address], tls: Tls | None, name: str) -> tuple[Address, bytes]:
    """Returns the first of several addresses that takes a connection, and its certificate (DER).

    Raises:
        ConnectFailed: none does, or the certificate is not one that `tls` has us accept.
    """
    untried = list(places)
    attempts: dict[asyncio.Task[Streams], Address] = {}
    failures: list[ConnectFailed] = []
    try:
        while untried or attempts:
            if untried:
                place = untried.pop(0)
                context = None if tls is None else tls.client_context()
                attempts[asyncio.create_task(_open(place, context, name))] = place
            patience = HEAD_START if untried else None
            when = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=when)
            for attempt in done:
                place = attempts.pop(attempt)
                try:
                    _, writer = attempt.result()
                except OSError as error:
                    failures.append(_failed(place, error, name))
                else:
                    await _leave(writer)
                    return place, _certificate(writer)
    finally:
        await _give_up(attempts)
    # What speaks TLS at all is more telling than an address where nobody listens.
    raise min(failures, key=lambda failure: failure.reason != "tls")


def _certificate(writer: asyncio.StreamWriter) -> bytes:
    tls = writer.get_extra_info("ssl_object")
    return b"" if tls is None else tls.getpeercert(binary_form=True) or b""


async def _give_up(attempts: Iterable[asyncio.Task[Streams]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, tuple):
            await _leave(result[1])


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()  # else asyncio may log why it was closed, if the peer did so


async def explain(place: Address, tls: Tls | None, name: str, seen: bytes) -> ConnectFailed:
    """Returns why no call gets through to `place`.

    Args:
        seen: the certificate (DER) that it has shown before.
    """
    try:
        async with asyncio.timeout(EXPLAIN):
            return await _greet(place, tls, name, seen)
    except TimeoutError as error:
        if error.errno is None:
            return ConnectFailed(f"{place.text} took no call, and does not say why")
        return _failed(place, error, name)
    except OSError as error:
        return _failed(place, error, name)


async def _greet(place: Address, tls: Tls | None, name: str, seen: bytes) -> ConnectFailed:
    """Begins HTTP/2, and looks at the answer."""
    reader, writer = await _open(place, tls and tls.client_context(), name)
    secured = writer.get_extra_info("ssl_object")
    agreed = None if secured is None else secured.selected_alpn_protocol()
    try:
        writer.write(_PREFACE)
        answer = await reader.read(9)
    except ConnectionError:
        answer = b""
    finally:
        await _leave(writer)
    if _certificate(writer) != seen:
        return ConnectFailed(
            f"{place.text} shows another certificate each time: it has just been replaced, or "
            "somebody is in between"
        )
    for whose, certificate in (("its", seen), ("our", tls and tls.client_pem().certificate)):
        if certificate and (kind := odd_key(certificate)):
            return ConnectFailed(
                f"{place.text}: gRPC does not take the key of {whose} certificate ({kind}); "
                "let it be RSA, P-256 or P-384",
                reason="tls",
            )
    if answer[3:4] == b"\x04":
        return ConnectFailed(f"{place.text} did not take the call: it may be stopping")
    if answer:
        return ConnectFailed(f"{place.text} does not speak gRPC")
    if tls is None:
        return await _hung_up(place)
    if agreed != "h2":
        return ConnectFailed(f"{place.text}: {_NO_HTTP2}")
    fault = "does not accept ours" if tls.client_pem().certificate else "demands one of us"
    what = f"hung up after the TLS handshake: perhaps it {fault}, or it was just ending"
    return ConnectFailed(f"{place.text} {what}")


async def _hung_up(place: Address) -> ConnectFailed:
    """Returns why somebody hangs up who is talked to in clear: gRPC says nothing about TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await _open(place, context)
    except OSError:
        return _closed(place)
    await _leave(writer)
    return ConnectFailed(
        f"{place.text} expects TLS: it was dialled without credentials", reason="tls"
    )


async def _open(place: Address, context: ssl.SSLContext | None = None, name: str = "") -> Streams:
    name_or_none = name if context is not None else None
    if context is not None:
        with contextlib.suppress(NotImplementedError):
            context.set_alpn_protocols(["h2"])
    if place.path:
        return await asyncio.open_unix_connection(
            place.path, ssl=context, server_hostname=name_or_none
        )
    return await asyncio.open_connection(
        place.host, place.port, ssl=context, server_hostname=name_or_none
    )


# What went wrong ---------------------------------------------------------------------------------

_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself, by none of the authorities that we trust",
    19: "is signed by none of the authorities that we trust",
    20: "is signed by none of the authorities that we trust",
    21: "is signed by none of the authorities that we trust",
    23: "has been revoked",
    62: "is made out to another name than {name!r}",
    64: "is made out to another address than {name!r}",
}

_NO_HTTP2 = "it speaks TLS, but not gRPC: perhaps it is a worker of another transport, such as ws"

_PLAINTEXT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER")


def _failed(place: Address, error: OSError, name: str) -> ConnectFailed:
    """Returns what to raise for an error of a bare connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code, f"is no good: {error.verify_message}")
        what = f"{place.text}: its certificate {fault.format(name=name)}"
        return ConnectFailed(what, reason="tls")
    if isinstance(error, ssl.SSLEOFError):
        return _closed(place)
    if isinstance(error, ssl.SSLError):
        if "no application protocol" in str(error):
            return ConnectFailed(f"{place.text}: {_NO_HTTP2}")
        final = any(word in (error.reason or "") for word in ("ALERT", "BAD_SIGNATURE"))
        what = f"{place.text}: {_tls_fault(error.reason or '')}"
        return ConnectFailed(what, reason="tls" if final else "unknown")
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        return _closed(place)
    return _unreachable(place, error)


def _tls_fault(reason: str) -> str:
    if any(word in reason for word in _PLAINTEXT):
        return "it does not speak TLS, which the credentials demand"
    if "BAD_SIGNATURE" in reason:
        return "it does not have the key of the certificate that it shows: it is somebody else"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return "it refuses our certificate"
    return f"TLS failed: {reason.lower().replace('_', ' ') or 'for an unknown reason'}"


def _closed(place: Address) -> ConnectFailed:
    return ConnectFailed(
        f"{place.text} closed the connection at once: it may have too many, or something else "
        "than a worker of Wool is listening",
        reason="refused",
    )


def _unreachable(place: Address, error: OSError) -> ConnectFailed:
    reason: Literal["refused", "timeout", "unknown"] = "unknown"
    if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
        reason = "refused"
    elif error.errno == errno.ETIMEDOUT:
        reason = "timeout"
    named = isinstance(error, socket.gaierror)  # whose numbers are others
    what = os.strerror(error.errno) if error.errno and not named else error.strerror or str(error)
    return ConnectFailed(f"{place.text} cannot be reached: {what}", reason=reason)
