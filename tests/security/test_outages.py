"""A short outage, or one lie of somebody in between, takes no worker away for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import wool
from security.siegekit import NETWORK, TOKEN
from support.jobs import add
from wool import abc
from wool._protocol import frames as f
from wool._security.credentials import Token
from wool._worker.transports import Transports

pytestmark = [pytest.mark.parametrize("transport", NETWORK), pytest.mark.timeout(60)]

Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def in_between(meet: Meet) -> AsyncIterator[int]:
    """Listens; yields the port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await meet(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("resets", [True, False])
async def test_a_tunnel_whose_end_is_down(transport: str, resets: bool) -> None:
    """As `ssh -L` or a load balancer: it takes connections and hangs up. The worker comes back."""
    hung_up, there = 0, asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        if not there.is_set():
            hung_up += 1
            if not resets:
                await reader.read(1)
            writer.transport.abort()
            return
        up, down = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, down), copy(up, writer), return_exceptions=True)

    token = wool.Credentials.token(TOKEN)
    async with wool.Worker(address=f"{transport}://127.0.0.1:0", credentials=token) as worker:
        port = int(worker.info.address.rstrip("/").rpartition(":")[2])
        async with in_between(meet) as tunnel:
            address = f"{transport}://127.0.0.1:{tunnel}"
            pool = wool.WorkerPool(discovery=[address], credentials=token, quorum_timeout=30)
            opening = asyncio.create_task(pool.__aenter__())
            while hung_up < 4:
                assert not opening.done()
                await asyncio.sleep(0.01)
            there.set()
            await opening
            try:
                assert await add(1, 2) == 3
            finally:
                await pool.__aexit__(None, None, None)


async def test_a_refusal_that_anybody_may_have_sent(transport: str) -> None:
    """Nobody has proved anything when it comes: it is not believed the first few times."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"{transport}://127.0.0.1:{free.getsockname()[1]}"
    token = wool.Credentials.token(TOKEN)
    _, made = Transports({}).get(transport)
    lies, lied = 0, asyncio.Event()

    async def lie(connection: abc.Connection) -> None:
        nonlocal lies
        await connection.receive()
        await connection.send([[f.encode(f.Refuse("authentication", "go away"))]])
        lies += 1
        if lies == 4:
            lied.set()
        await connection.aclose()

    liar = await made.listen(address, credentials=Token(TOKEN).acceptor().tls)
    serving = asyncio.create_task(liar.serve(lie))
    pool = wool.WorkerPool(discovery=[address], credentials=token, quorum_timeout=30)
    opening = asyncio.create_task(pool.__aenter__())
    await lied.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await liar.aclose()
    async with wool.Worker(address=address, credentials=token):
        await opening
        try:
            assert await add(1, 2) == 3
        finally:
            await pool.__aexit__(None, None, None)


async def test_a_worker_with_another_token(transport: str) -> None:
    """It is asked more than once, and then believed: nobody waits for the end of the quorum."""
    other = wool.Credentials.token(wool.Credentials.new_token())
    async with wool.Worker(address=f"{transport}://127.0.0.1:0", credentials=other) as worker:
        token = wool.Credentials.token(TOKEN)
        found = [worker.info.address]
        with pytest.raises(wool.AuthenticationError):
            async with wool.WorkerPool(discovery=found, credentials=token, quorum_timeout=3600):
                pass
