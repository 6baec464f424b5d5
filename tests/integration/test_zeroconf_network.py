"""The discovery `zeroconf` between machines: three of them on a switch, and what befalls them."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.network import Host, lan

PEER = str(Path(__file__).with_name("zeroconf_peer.py"))
INTERVAL = 1.0
PATIENCE = 30.0
"""Seconds for what takes one or, of somebody who has fallen silent, some; the machine may stall."""


class Peer:
    """A process of the discovery on a machine."""

    def __init__(
        self, host: Host, role: str, options: dict[str, Any], *rest: str, warnings: str = "error"
    ) -> None:
        options = {"interval": INTERVAL, **options}
        # Whatever it logs or warns of comes among its answers, and is no answer.
        command = [sys.executable, "-W", warnings, PEER, role, json.dumps(options)]
        self.process = host.popen(
            [*command, *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def line(self, seconds: float = PATIENCE) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(self.process.stdout.readline)

    async def next(self, seconds: float = PATIENCE) -> tuple[Any, ...]:
        """What it tells next: a word and a worker, or several."""
        line = await self.line(seconds)
        try:
            told = json.loads(line)
        except ValueError:
            assert self.process.stdout is not None
            self.process.kill()
            pytest.fail(line + self.process.stdout.read())
        return tuple(told[name] for name in ("event", "worker", "workers") if name in told)

    async def finds(self, *workers: list[Any]) -> None:
        """Waits until it knows these; who answers late is told of after its first word."""
        word, known = await self.next()
        assert word == "Snapshot"
        while len(known) < len(workers):
            word, worker = await self.next()
            assert word == "Joined"
            known.append(worker)
        assert sorted(known) == list(workers)

    async def update(self, *tags: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(tags) + "\n")
        self.process.stdin.flush()
        assert await self.next() == ("updated",)

    async def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.next() == ("leaving",)
        assert await asyncio.to_thread(self.process.wait) == 0
        assert await self.line() == ""


@pytest.fixture
async def hosts() -> AsyncIterator[list[Host]]:
    async with lan(3) as hosts:
        yield hosts


@pytest.fixture
def options() -> dict[str, Any]:
    return {"namespace": secrets.token_hex(4)}


async def announce(host: Host, options: dict[str, Any], address: str, ident: str) -> Peer:
    peer = Peer(host, "announce", options, ident, address, "gpu")
    assert await peer.next() == ("announced",)
    return peer


@pytest.mark.parametrize(
    ("address", "more"),
    [
        pytest.param("grpc://{0.address}:7000", {}, id="IPv4"),
        pytest.param("ws://[{0.address6}]:80/wool", {"ip_version": "v6"}, id="IPv6"),
        pytest.param("grpc://worker.example:7000", {"ip_version": "v4"}, id="name"),
    ],
)
async def test_machines_find_each_other(
    hosts: list[Host], options: dict[str, Any], address: str, more: dict[str, Any]
) -> None:
    options |= more
    one, two = (address.format(host) for host in hosts[:2])
    watch = Peer(hosts[2], "watch", options)
    assert await watch.next() == ("Snapshot", [])
    first = await announce(hosts[0], options, one, "first")
    assert await watch.next() == ("Joined", ["first", one, ["gpu"]])
    second = await announce(hosts[1], options, two, "second")
    assert await watch.next() == ("Joined", ["second", two, ["gpu"]])
    late = Peer(hosts[2], "watch", options)
    await late.finds(["first", one, ["gpu"]], ["second", two, ["gpu"]])
    await first.update("cpu", "tpu")
    for peer in (watch, late):
        assert await peer.next() == ("Changed", ["first", one, ["cpu", "tpu"]])
    await first.leave()
    for peer in (watch, late):
        assert await peer.next() == ("Left", ["first", one, ["cpu", "tpu"]])
    await second.leave()
    for peer in (watch, late):
        assert await peer.next() == ("Left", ["second", two, ["gpu"]])


async def test_machines_that_are_cut_off_and_workers_that_are_killed(
    hosts: list[Host], options: dict[str, Any]
) -> None:
    def told(host: Host, ident: str) -> list[Any]:
        return [ident, f"grpc://{host.address}:7000", ["gpu"]]

    peers = [
        await announce(host, options, f"grpc://{host.address}:7000", ident)
        for ident, host in zip(["killed", "cut", "safe"], hosts, strict=True)
    ]
    killed, cut, safe = told(hosts[0], "killed"), told(hosts[1], "cut"), told(hosts[2], "safe")
    here, there = Peer(hosts[2], "watch", options), Peer(hosts[1], "watch", options)
    for peer in (here, there):
        await peer.finds(cut, killed, safe)

    peers[0].process.send_signal(signal.SIGKILL)
    hosts[1].cut()
    gone = [await here.next(), await here.next()]
    assert sorted(gone) == [("Left", cut), ("Left", killed)]
    gone = [await there.next(), await there.next()]
    assert sorted(gone) == [("Left", killed), ("Left", safe)]

    there.process.kill()  # or its questions would help
    hosts[1].restore()
    assert await here.next() == ("Joined", cut)


async def test_a_machine_that_gets_its_network_later(
    hosts: list[Host], options: dict[str, Any]
) -> None:
    """As at boot; and one that loses it, with all its addresses, and gets it back."""
    told = ["early", f"grpc://[{hosts[0].address6}]:7000", ["gpu"]]
    hosts[0].down()
    await announce(hosts[0], options, told[1], told[0])
    assert sockets(hosts[0]) == (1, 0)  # those of the loopback interface
    watch = Peer(hosts[2], "watch", options)
    assert await watch.next() == ("Snapshot", [])
    hosts[0].up()
    assert await watch.next() == ("Joined", told)
    hosts[0].down()
    async with asyncio.timeout(PATIENCE):
        while sockets(hosts[0]) != (1, 0):
            await asyncio.sleep(0.05)
    hosts[0].up()
    async with asyncio.timeout(PATIENCE):
        while sockets(hosts[0]) != (2, 1):
            await asyncio.sleep(0.05)
    late = Peer(hosts[1], "watch", options)
    await late.finds(told)


def sockets(host: Host) -> tuple[int, int]:
    """How many addresses of a machine have a socket for multicast DNS: of IPv4, and of IPv6."""
    return bound(host, "udp"), bound(host, "udp6")


def bound(host: Host, table: str) -> int:
    lines = host.run(["cat", f"/proc/net/{table}"]).splitlines()[1:]
    places = {tuple(line.split()[1].split(":")) for line in lines}
    return sum(port == f"{5353:04X}" and address.strip("0") != "" for address, port in places)
