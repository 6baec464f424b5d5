"""Errors of connecting, in words for users."""

from __future__ import annotations

import os
import re
import socket
import ssl
from http import HTTPStatus

from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from wool.abc import ConnectFailed
from wool_ws._addresses import Address
from wool_ws._connection import HungUp, SpeaksTls

NEEDS_CREDENTIALS = "it is reached by TLS only: give credentials, such as a token"
_WANTS_TLS = re.compile(rb"https|ssl|tls", re.IGNORECASE)


def timed_out(address: Address, timeout: float) -> ConnectFailed:
    return ConnectFailed(f"{address} did not answer within {timeout:g} s", reason="timeout")


def not_reached(address: Address, error: OSError | UnicodeError) -> ConnectFailed:
    """No connection below HTTP and TLS."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return ConnectFailed(f"{address}: there is no host of that name ({words(error)})")
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return ConnectFailed(f"{address}: nobody listens there", reason="refused")
    if isinstance(error, TimeoutError):
        return ConnectFailed(f"{address}: the host does not answer", reason="timeout")
    return ConnectFailed(f"{address}: {words(error)}")


def no_tls(address: Address, error: Exception) -> ConnectFailed:
    """The TLS handshake has failed.

    Only an alert and a certificate say that it will fail again. Somebody who hangs up, or answers
    with something else, may be a proxy whose worker is about to be there.
    """
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else None
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate is not accepted: {error.verify_message or error.reason}"
    elif reason and "ALERT" in reason:
        words = re.sub(r"^.*ALERT_", "", reason).replace("_", " ").lower()
        text = f"it refuses us in the TLS handshake: {words}"
    elif reason and "BAD_SIGNATURE" in reason:
        text = "it does not have the key of the certificate that it shows: it is somebody else"
    elif reason is None or "EOF" in reason:
        text = (
            "it hung up during the TLS handshake: "
            "it does not speak TLS, does not accept our certificate, or was just ending"
        )
        return ConnectFailed(f"{address}: {text}")
    else:
        text = f"it does not speak TLS, or not such as we do ({reason or error})"
        return ConnectFailed(f"{address}: {text}")
    return ConnectFailed(f"{address}: {text}", reason="tls")


def words(error: OSError | UnicodeError) -> str:
    """Says what the system has against a place; Python adds to that what nobody need know."""
    if isinstance(error, UnicodeError):
        return "it cannot be one"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


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
