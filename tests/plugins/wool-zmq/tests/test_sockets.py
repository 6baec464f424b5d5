"""What ZeroMQ has for a socket reaches it."""

from __future__ import annotations

import asyncio
import select
import time
from pathlib import Path

import pytest
import zmq

from wool_zmq._sockets import Monitored


async def test_post_in_vain_keeps_what_has_arrived(tmp_path: Path) -> None:
    """To try to send is to look: ZeroMQ's descriptor says no more of what came in before."""
    address = f"ipc://{tmp_path}/s"
    arrived: asyncio.Queue[list[bytes]] = asyncio.Queue()
    gone = asyncio.Event()

    def router_got(message: list[zmq.Frame]) -> None:
        arrived.put_nowait([frame.bytes for frame in message])

    def dealer() -> Monitored:
        dealer = Monitored(zmq.DEALER, {}, zmq.EVENT_CLOSED, print, print)
        dealer.socket.connect(address)
        return dealer

    options = {zmq.ROUTER_MANDATORY: 1}
    router = Monitored(
        zmq.ROUTER, options, zmq.EVENT_DISCONNECTED, router_got, lambda *_: gone.set()
    )
    router.socket.bind(address)
    first = dealer()
    first.post([b"first"])
    ident, _ = await arrived.get()
    first.close()
    await gone.wait()

    second = dealer()
    second.post([b"second"])
    assert (await arrived.get())[1] == b"second"
    second.post([b"again"])
    assert select.select([router.socket.FD], [], [], 10)[0]
    time.sleep(0.01)  # when it sends, ZeroMQ looks no more often than that
    with pytest.raises(zmq.ZMQError):
        router.post([ident, b"ping"])
    assert (await asyncio.wait_for(arrived.get(), 10))[1] == b"again"
    second.close()
    router.close()
