"""Helpers that tests of `wool_ws` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from support import transports
from support.transports import Served
from wool.abc import ConnectFailed, Tls
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

MIB = 1 << 20


async def failing(
    address: str, credentials: Tls | None = None, timeout: float = 10.0, **options: Any
) -> ConnectFailed:
    """The error of an attempt to connect, whose message begins with the address."""
    with pytest.raises(ConnectFailed) as raised:
        await dial(address, credentials, timeout, **options)
    assert address.partition("://")[2].partition("/")[0] in str(raised.value)
    return raised.value


async def dial(
    address: str, credentials: Tls | None = None, timeout: float = 10.0, **options: Any
) -> Any:
    transport = WebSocketTransport(Options(**options))
    return await transports.dial(transport, address, credentials, timeout)


def serving(
    address: str | None = None,
    credentials: Tls | None = None,
    handler: Any = None,
    **options: Any,
) -> AbstractAsyncContextManager[Served]:
    transport = WebSocketTransport(Options(**options))
    return transports.serving(transport, address, credentials, handler)


def connected(
    credentials: Tls | None = None, **options: Any
) -> AbstractAsyncContextManager[tuple[Any, Any]]:
    return transports.connected(WebSocketTransport(Options(**options)), credentials)


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[str]:
    """Something that answers whatever it is told with the same bytes, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
