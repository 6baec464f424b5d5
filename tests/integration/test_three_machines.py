"""Three machines that share a network and a token, and nothing else: two serve, one calls."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.lanmachines import Caller, Served
from support.network import Host, lan
from wool.cli.worker import TOGETHER

QUICK = {
    "WOOL_GRPC__KEEPALIVE": "1",
    "WOOL_GRPC__KEEPALIVE_TIMEOUT": "1",
    "WOOL_WS__KEEPALIVE": "1",
    "WOOL_WS__KEEPALIVE_TIMEOUT": "1",
    "WOOL_ZEROCONF__INTERVAL": "1",
}
"""Two seconds for a machine to be given up, and one until others are looked for again."""

ZEROCONF = ["--discovery", "zeroconf"]


@pytest.fixture
async def hosts() -> AsyncIterator[list[Host]]:
    async with lan(3) as hosts:
        yield hosts


async def called(caller: Caller, *hosts: Host) -> None:
    """Waits until the caller's calls run on these machines, and no others."""
    await answered(caller, "machines", sorted(host.address for host in hosts))


async def answered(caller: Caller, question: str, expected: Any) -> None:
    """Waits for an answer."""
    told: Any = None
    try:
        async with asyncio.timeout(30):
            while told != expected:
                told = await caller.ask(question)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{question} is {told}, not {expected}")


def everywhere(*hosts: Host) -> list[list[str]]:
    """All ways of nested calls between these machines."""
    addresses = sorted(host.address for host in hosts)
    return [[one, other] for one in addresses for other in addresses]


@pytest.mark.parametrize(
    ("transport", "scheme"),
    [
        pytest.param([], "grpc", id="by itself"),
        pytest.param(["--transport", "ws"], "wss", id="ws"),
    ],
)
async def test_the_life_of_a_cluster(
    hosts: list[Host], folder: Path, transport: list[str], scheme: str
) -> None:
    one, two, three = hosts
    workers = [Served(host, folder, [*ZEROCONF, *transport], **QUICK) for host in (one, two)]
    addresses = [await worker.address() for worker in workers]
    for address, host in zip(addresses, hosts, strict=False):
        assert address.startswith(f"{scheme}://{host.address}:")
    caller = Caller(three, folder, {"discovery": "zeroconf", "quorum": 2}, **QUICK)
    await caller.open()
    assert await caller.ask("examples") == [3, "mtprq"]
    await answered(caller, "tree", everywhere(one, two))
    assert await caller.ask("workers") == sorted(addresses)

    # One of them is cut off: its call is lost, and all else goes on.
    assert await caller.ask("spread", one.address, two.address) == [one.address, two.address]
    stays, lost = caller.begin("hold", one.address), caller.begin("hold", two.address)
    two.cut()
    async with asyncio.timeout(30):
        (kind, text, outcome), _ = await lost
    assert (kind, outcome) == ("WorkerLost", "unknown")
    assert "during stay(), which may have run in part" in text
    for _ in range(20):
        assert await caller.ask("call") == one.address
    assert await caller.ask("examples") == [3, "mtprq"]
    assert not stays.done()

    # It comes back, and takes part again.
    two.restore()
    await called(caller, one, two)

    # The workers have yet to find out which of their connections to each other have outlived it.
    await answered(caller, "tree", everywhere(one, two))
    assert not stays.done()

    # It is killed: nobody waits for it. Another one takes its place.
    workers[1].process.kill()
    await called(caller, one)
    for _ in range(20):
        assert await caller.ask("call") == one.address
    workers[1] = Served(two, folder, [*ZEROCONF, *transport], **QUICK)
    addresses[1] = await workers[1].address()
    await called(caller, one, two)
    await answered(caller, "workers", sorted(addresses))

    # The other one is told to leave: new calls go elsewhere at once, and its own gets to finish.
    workers[0].process.send_signal(signal.SIGTERM)
    await workers[0].says("SIGTERM: takes no more calls")
    await called(caller, two)
    assert not stays.done()
    await asyncio.sleep(TOGETHER)
    workers[0].process.send_signal(signal.SIGTERM)
    assert (await stays)[0][0] == "WorkerStopped"
    assert await asyncio.to_thread(workers[0].process.wait, 30) == 0
    assert await caller.leave() == ""


async def test_a_worker_that_returns_at_the_same_address(hosts: list[Host], folder: Path) -> None:
    one, _, three = hosts
    place = [*ZEROCONF, "--address", "ws://0.0.0.0:7000"]
    worker = Served(one, folder, place, **QUICK)
    await worker.address()
    caller = Caller(three, folder, {"discovery": "zeroconf"}, **QUICK)
    await caller.open()
    worker.process.kill()
    await asyncio.to_thread(worker.process.wait)
    waiting = caller.begin("call")  # until there is somebody
    again = Served(one, folder, place, **QUICK)
    assert await again.address() == f"wss://{one.address}:7000/"
    async with asyncio.timeout(30):
        told = (await waiting)[0]
        if told[0] == "WorkerLost":  # it was sent before the caller had heard of the death
            told = await caller.ask("call")
    assert told == one.address
    assert await caller.leave() == ""


async def test_an_address_that_is_not_where_it_listens(hosts: list[Host], folder: Path) -> None:
    """As behind a port that is forwarded; the address where it listens is on another interface."""
    one, two, _ = hosts
    one.run(["ip", "address", "add", "10.99.0.77/24", "dev", "eth0"])
    told = "wss://10.99.0.77:7000/"
    place = ["--address", "ws://0.0.0.0:7000", "--advertise", told]
    worker = Served(one, folder, [*ZEROCONF, *place], **QUICK)
    assert await worker.address() == told
    caller = Caller(two, folder, {"discovery": "zeroconf"}, **QUICK)
    await caller.open()
    assert await caller.ask("workers") == [told]
    assert await caller.ask("examples") == [3, "mtprq"]
    assert await caller.leave() == ""


async def test_pools_that_share_their_workers(hosts: list[Host], folder: Path) -> None:
    options = {"discovery": "zeroconf", "size": 1, "quorum": 3}
    callers = [Caller(host, folder, options, **QUICK) for host in hosts]
    for caller in callers:
        await caller.open()
    for caller in callers:
        await called(caller, *hosts)
        assert await caller.ask("examples") == [3, "mtprq"]

    await answered(callers[0], "tree", everywhere(*hosts))
    for left, caller in enumerate(callers):
        for other in callers[left:]:
            await called(other, *hosts[left:])
        assert await caller.leave() == ""


async def test_machines_without_ipv4(hosts: list[Host], folder: Path) -> None:
    for host in hosts:
        host.forget_ipv4()
    for host, more in zip(hosts, [[], ["--interface", "eth0", "--transport", "ws"]], strict=False):
        worker = Served(host, folder, [*ZEROCONF, *more], **QUICK)
        assert f"[{host.address6}]" in await worker.address()
    caller = Caller(hosts[2], folder, {"discovery": "zeroconf", "quorum": 2}, **QUICK)
    await caller.open()
    await answered(caller, "machines", [hosts[0].address6, hosts[1].address6])
    ways = [[one.address6, other.address6] for one in hosts[:2] for other in hosts[:2]]
    await answered(caller, "tree", ways)
    assert await caller.leave() == ""
