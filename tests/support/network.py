"""A network of several machines on one: network namespaces, each with a cable to a switch.

    async with lan(3) as hosts:
        worker = hosts[0].popen([sys.executable, "worker.py"], stdout=subprocess.PIPE)
        hosts[0].cut()
        hosts[0].restore()

Only root can make one; a test that cannot have it is skipped, with the reason. A process in a
namespace sees the files and processes of the whole machine, but has interfaces, addresses, ports
and abstract sockets of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

PREFIX = "wooltest"
PORT = "eth0"


@dataclass
class Host:
    """One machine of the network.

    Attributes:
        name: of its namespace, as `ip netns` knows it.
        address: its IPv4 address.
        address6: its unique local IPv6 address.
        link_local: its link-local IPv6 address, without a zone.
    """

    name: str
    address: str
    address6: str
    link_local: str
    switch: str
    cable: str
    processes: list[subprocess.Popen[Any]] = field(default_factory=list[subprocess.Popen[Any]])

    def popen(self, args: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a process on the machine; it is killed when the network is taken down.

        The process is the program itself: signals reach it, and its exit code is the program's.
        """
        command = ["ip", "netns", "exec", self.name, *args]
        process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    def run(self, args: Sequence[str], **options: Any) -> str:
        """Runs a process on the machine to its end; returns what it has printed."""
        command = ["ip", "netns", "exec", self.name, *args]
        done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
        return done.stdout

    def cut(self) -> None:
        """Pulls the cable out of the switch: nothing gets through, and nobody is told."""
        _ip(f"-n {self.switch} link set {self.cable} down")

    def restore(self) -> None:
        """Puts the cable back."""
        _ip(f"-n {self.switch} link set {self.cable} up")

    def down(self) -> None:
        """Takes the interface of the machine down, and its addresses away."""
        _ip(f"-n {self.name} addr flush dev {PORT}")
        _ip(f"-n {self.name} link set {PORT} down")

    def forget_ipv4(self) -> None:
        """Takes the IPv4 address of the machine away."""
        _ip(f"-n {self.name} -4 addr flush dev {PORT}")

    def up(self) -> None:
        """Takes the interface up, with its addresses."""
        # They are not checked for duplicates, so that all can be used at once.
        _ip(f"-n {self.name} addr add {self.address}/24 dev {PORT}")
        _ip(f"-n {self.name} addr add {self.address6}/64 dev {PORT} nodad")
        _ip(f"-n {self.name} addr add {self.link_local}/64 dev {PORT} nodad")
        _ip(f"-n {self.name} link set {PORT} up")
        _ip(f"-n {self.name} route add default via 10.99.0.254")  # multicast needs one
        _ip(f"-n {self.name} -6 route add default via fd99::fffe dev {PORT}")


@asynccontextmanager
async def lan(count: int) -> AsyncIterator[list[Host]]:
    """Builds a network of `count` machines, and takes it down whatever happens."""
    reason = await asyncio.to_thread(unavailable)
    if reason and os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with _network(count) as hosts:
        yield hosts


def unavailable() -> str:
    """Says why there can be no network here; an empty string if there can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    try:
        _ip(f"netns add {probe}")
        _ip(f"-n {probe} link add probe0 type bridge")
        _ip(f"-n {probe} link add probe1 type veth peer name probe2")
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return ""


@contextmanager
def _network(count: int) -> Iterator[list[Host]]:
    _sweep()
    base = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
    switch = f"{base}-switch"
    hosts: list[Host] = []
    try:
        _ip(f"netns add {switch}")
        # A bridge that learns who wants which multicast needs a router to ask; this one has none.
        _ip(f"-n {switch} link add lan type bridge mcast_snooping 0 forward_delay 0")
        _ip(f"-n {switch} link set lan up")
        for number in range(1, count + 1):
            hosts.append(_host(f"{base}-{number}", switch, number))
            _plug(hosts[-1])
        yield hosts
    finally:
        for host in hosts:
            _clear(host)
        for name in [switch, *(host.name for host in hosts)]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _host(name: str, switch: str, number: int) -> Host:
    return Host(
        name=name,
        address=f"10.99.0.{number}",
        address6=f"fd99::{number:x}",
        link_local=f"fe80::99:{number:x}",
        switch=switch,
        cable=f"port{number}",
    )


def _plug(host: Host) -> None:
    """Makes a machine with its interface, and connects that to the switch."""
    name = host.name
    _ip(f"netns add {name}")
    _ip(f"link add {PORT} netns {name} type veth peer name {host.cable} netns {host.switch}")
    _ip(f"-n {host.switch} link set {host.cable} master lan up")
    _ip(f"-n {name} link set lo up")
    _ip(f"-n {name} link set {PORT} addrgenmode none")
    host.up()


def _clear(host: Host) -> None:
    """Kills what runs on a machine, grandchildren as well."""
    done = subprocess.run(
        ["ip", "netns", "pids", host.name], check=False, capture_output=True, text=True
    )
    for pid in map(int, done.stdout.split()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for process in host.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _sweep() -> None:
    """Removes what a test run has left that was killed."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    for name, pid in re.findall(rf"^({PREFIX}-(\d+)\S*)", listed.stdout, re.MULTILINE):
        if not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)


def free_port() -> int:
    """Below those that the system gives to others, until it is used."""
    while True:
        port = random.randrange(15_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
