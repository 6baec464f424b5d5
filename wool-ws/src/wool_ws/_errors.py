"""Errors of connecting, in words for users."""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus

from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from wool._transports.failures import no_tls
from wool.abc import ConnectFailed
from wool_ws._addresses import Address
from wool_ws._connection import HungUp, SpeaksTls

NEEDS_CREDENTIALS = "it is reached by TLS only: give credentials, such as a token"
_WANTS_TLS = re.compile(rb"https|ssl|tls", re.IGNORECASE)


def timed_out(address: Address, timeout: float) -> ConnectFailed:
    return ConnectFailed(f"{address} did not answer within {timeout:g} s", reason="timeout")


def no_websocket(address: Address, error: Exception, *, encrypted: bool) -> ConnectFailed:
    """There is no, or no good answer to the HTTP request."""
    if isinstance(error, InvalidStatus):
        return _status(address, error.response, encrypted=encrypted)
    if isinstance(error, ssl.SSLError):
        return no_tls(address, error)  # TLS 1.3 refuses a client's certificate only now
    if isinstance(error, HungUp) and error.silent and encrypted:
        text = "it hung up after the TLS handshake: perhaps it does not accept our certificate"
        other = "or demands one, or is a worker of another transport, such as grpc"
        return ConnectFailed(f"{address}: {text}, {other}")
    if isinstance(error, HungUp) and error.silent and not address.socket:
        text = f"it hung up on a request without TLS: perhaps {NEEDS_CREDENTIALS}"
        return ConnectFailed(f"{address}: {text}")
    if isinstance(error, HungUp):
        return ConnectFailed(f"{address}: it hung up before the connection was made")
    if isinstance(error, SpeaksTls):
        return ConnectFailed(f"{address}: {NEEDS_CREDENTIALS}", reason="tls")
    text = _printable(str(error.__cause__ or error))
    return ConnectFailed(f"{address}: it is not a WebSocket server: {text}")


def _printable(text: str) -> str:
    """The words of somebody else, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _status(address: Address, response: Response, *, encrypted: bool) -> ConnectFailed:
    """It has answered, but not by opening a WebSocket."""
    code = response.status_code
    status = _printable(f"HTTP {code} {response.reason_phrase}".strip())
    if code == HTTPStatus.NOT_FOUND:
        text = f"nobody listens at the path {address.path} ({status}); check the address"
        return ConnectFailed(f"{address}: {text}", reason="refused")
    if code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        text = f"the proxy there does not reach the worker ({status}); does it run?"
        return ConnectFailed(f"{address}: {text}", reason="refused")
    if not encrypted and code == HTTPStatus.BAD_REQUEST and _WANTS_TLS.search(response.body):
        return ConnectFailed(f"{address}: {NEEDS_CREDENTIALS} ({status})", reason="tls")
    if code == HTTPStatus.BAD_REQUEST and _WANTS_TLS.search(response.body):
        text = f"it does not accept our certificate, or demands one ({status})"
        return ConnectFailed(f"{address}: {text}", reason="tls")
    if code in (HTTPStatus.UPGRADE_REQUIRED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED):
        text = "a proxy in between must speak HTTP/1.1 and pass on the headers Upgrade, Connection"
        return ConnectFailed(f"{address}: {text} ({status})")
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ConnectFailed(f"{address}: something in front of the worker denies us ({status})")
    moved = response.headers.get("Location") if 300 <= code < 400 else None
    if moved is not None:
        return ConnectFailed(
            f"{address}: it has moved to {_printable(moved)} ({status}); dial that"
        )
    return ConnectFailed(f"{address}: it is not a WebSocket server; it answered {status}")
