"""The program of another user of the machine. Becomes that user once everything is imported."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from security.siegekit import LOCAL
from security.siegepeers import Caller, UnixStream, dial
from wool._security.credentials import PoolSecret, SameUser
from wool._worker.transports import Transports
from wool.exceptions import ConnectionLost, WoolError

NOBODY = 65534


async def visit(address: str, kind: str) -> str:
    """Tries to be served; returns how that ends."""
    channel, _, path = address.partition("://")
    try:
        os.listdir(os.path.dirname(path))
        entered = "enters the directory"
    except PermissionError:
        entered = "cannot enter the directory"
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
    except PermissionError:
        return f"{entered}, permission denied"
    credentials = PoolSecret() if kind == "pool" else SameUser()
    try:
        if channel == "unix":
            connection: Any = await UnixStream.to(path)
        else:
            connection = await dial(address, credentials, ROUTES)
    except WoolError as error:
        return f"{entered}, then {error}"
    caller = Caller(connection, credentials, local=True)
    with suppress(ConnectionLost):
        await caller.say(await caller.proof())
    return f"{entered}, then {await caller.end()}"


def listen(path: str) -> str:
    """Waits at a socket of one's own for somebody to come; returns what he says."""
    os.mkdir(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        os.chmod(os.path.dirname(path), 0o755)
        os.chmod(path, 0o777)
        print(json.dumps("listening"), flush=True)
        sock.settimeout(0.1)
        sys.stdin.readline()
        with suppress(TimeoutError):
            visitor, _ = sock.accept()
            with visitor:
                visitor.settimeout(0.1)
                return repr(visitor.recv(65536))
    return "nobody came"


def main() -> None:
    """Does what each line of standard input says."""
    while line := sys.stdin.readline():
        what, *arguments = json.loads(line)
        told = asyncio.run(visit(*arguments)) if what == "visit" else listen(*arguments)
        print(json.dumps(told), flush=True)


ROUTES = Transports({}).routes
for name in LOCAL:
    ROUTES.to(f"{name}:///x")  # which imports it
os.setgroups([])
os.setgid(NOBODY)
os.setuid(NOBODY)
main()
