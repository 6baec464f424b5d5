"""Addresses: `ws://host:port/path`, `wss://host:port/path` and `ws+unix:///path/of/a/socket`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from wool.abc import ConnectFailed

_FORMS = "ws://host:port/path, wss://host:port/path or ws+unix:///path/of/a/socket"
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The parts of an address.

    Attributes:
        host: name or number of a machine, without brackets; of a Unix socket, `"localhost"`.
        port: None if the address has none.
        socket: path of the Unix socket; empty if it is none.
        path: HTTP path.
        secure: whether it asks for TLS.
    """

    host: str
    port: int | None = None
    socket: str = ""
    path: str = "/"
    secure: bool = False

    def __str__(self) -> str:
        if self.socket:
            return f"ws+unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{'wss' if self.secure else 'ws'}://{host}{port}{self.path}"


def parse(text: str, path: str) -> Address:
    """Takes an address apart; one without an HTTP path gets `path`.

    Raises:
        ConnectFailed: it is none.
    """
    if text.startswith("ws+unix://"):
        place = text.removeprefix("ws+unix://")
        if not place.startswith("/") or "\0" in place:
            raise ConnectFailed(f"{text!r} is not an address of the form {_FORMS}")
        return Address(host="localhost", socket=place, path=path)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConnectFailed(f"{text!r} is not an address: {error}") from error
    if parts.scheme not in {"ws", "wss"} or not host or not _VISIBLE.fullmatch(text):
        raise ConnectFailed(f"{text!r} is not an address of the form {_FORMS}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConnectFailed(f"{text!r} has more than host, port and path")
    return Address(host=host, port=port, path=parts.path or path, secure=parts.scheme == "wss")
