"""The discovery `dns` with a real name server, whose records change, and workers that come and go.

Server, workers and callers live on a machine of their own, whose resolver asks that server.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.network import Host, lan
from support.serving import CLI, environment
from support.waiting import until_sync

NAME = "workers.wool.test"

SERVER = (
    "dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file --user= --group= --no-resolv "
    "--no-hosts --addn-hosts={records} --local=/wool.test/ --listen-address=127.0.0.1 "
    "--bind-interfaces --log-facility={log}"
)

CALLER = """
import asyncio, json, os, time, wool

@wool.routine
async def where():
    time.sleep(0.02)
    return os.getpid()

async def main():
    last = None
    async with wool.WorkerPool(discovery="dns", quorum_timeout=20) as pool:
        while True:
            places = sorted(worker.address for worker in pool.workers)
            try:
                pids = set(await asyncio.gather(*(where() for _ in range(10)))) if places else ()
            except wool.WorkerLost:  # it was killed as it ran some of them
                pids = ["lost"]
            if last != (last := [places, sorted(pids)]):
                print(json.dumps(last), flush=True)
            await asyncio.sleep(0.02)

asyncio.run(main())
"""


# Has a program ask the name server of its machine.
RESOLVING = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Network:
    """A machine with a name server that can be stopped and told new records."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._records = folder / "records"
        self._server: subprocess.Popen[Any] | None = None
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:10 attempts:1\n")

    def start(self, command: list[str], **variables: str) -> subprocess.Popen[str]:
        """Starts a program on the machine."""
        place = str(self._folder / "resolv.conf")
        return self._host.popen(
            ["unshare", "--mount", "sh", "-c", RESOLVING, place, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env=environment(**{"WOOL_DNS__NAME": NAME, "WOOL_DNS__INTERVAL": "0.1", **variables}),
        )

    def serve(self) -> None:
        """Starts the name server."""
        command = SERVER.format(records=self._records, log=self._folder / "log").split()
        self._server = self._host.popen(command)
        probe = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 53)))"
        until_sync(lambda: self._host.run([sys.executable, "-c", probe]) == "0\n", within=30)

    def silence(self) -> None:
        """Kills the name server."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def resolves_to(self, *addresses: str) -> None:
        """Changes the records of the name; a name server that runs reads them at once."""
        new = self._records.with_suffix(".new")
        new.write_text("".join(f"{address} {NAME}\n" for address in addresses))
        new.rename(self._records)
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGHUP)

    def worker(self, host: str) -> subprocess.Popen[str]:
        """Starts a worker as in a pod: all listen at the same port of hosts of their own."""
        process = self.start([*CLI, "worker", "--address", f"ws://{host}:7000"])
        assert process.stderr is not None
        assert "serves at" in process.stderr.readline()
        return process


@pytest_asyncio.fixture
async def network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if shutil.which("dnsmasq") is None:
        missing = pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip
        missing("dnsmasq is missing: install it, with `apt-get install dnsmasq-base` on Debian")
    async with lan(1) as (host,):
        yield Network(host, folder)


class Told:
    """What a caller in the network says of the workers that it uses."""

    def __init__(self, network: Network) -> None:
        self._process = network.start([sys.executable, "-c", CALLER], WOOL_DNS__SCHEME="ws")

    def until(self, hosts: list[str], workers: list[subprocess.Popen[str]]) -> list[Any]:
        """Waits until it knows the workers at these hosts, and these are what calls run on.

        Returns:
            What it had said before.
        """
        before: list[Any] = []
        expected = [
            [f"ws://{host}:7000" for host in hosts],
            sorted(worker.pid for worker in workers),
        ]
        assert self._process.stdout is not None
        deadline = time.monotonic() + 30
        while (line := self._process.stdout.readline()) and time.monotonic() < deadline:
            if json.loads(line) == expected:
                return before
            before.append(json.loads(line))
        assert self._process.stderr is not None
        self._process.kill()
        pytest.fail(f"{expected} was not among {before}; {self._process.stderr.read()}")


def test_workers_come_and_go_as_the_records_say(network: Network) -> None:
    network.resolves_to("127.0.0.2")
    network.serve()
    one = network.worker("127.0.0.2")
    told = Told(network)
    told.until(["127.0.0.2"], [one])

    other = network.worker("127.0.0.3")
    network.resolves_to("127.0.0.2", "127.0.0.3")
    told.until(["127.0.0.2", "127.0.0.3"], [one, other])

    network.resolves_to("127.0.0.3")  # it leaves, though it could still be called
    told.until(["127.0.0.3"], [other])

    network.silence()
    third = network.worker("127.0.0.4")
    network.resolves_to("127.0.0.4")
    network.serve()
    meanwhile = told.until(["127.0.0.4"], [third])
    assert [[], []] not in meanwhile, "while no server answered, nothing had changed"

    network.resolves_to()  # as of a service that is scaled to zero
    told.until([], [])
    network.resolves_to("127.0.0.2", "127.0.0.4")
    told.until(["127.0.0.2", "127.0.0.4"], [one, third])


def test_a_pod_that_is_gone_before_its_record(network: Network) -> None:
    """Calls go to the others, and to the one that has taken its place."""
    network.resolves_to("127.0.0.2", "127.0.0.3")
    network.serve()
    one, other = network.worker("127.0.0.2"), network.worker("127.0.0.3")
    told = Told(network)
    told.until(["127.0.0.2", "127.0.0.3"], [one, other])
    one.kill()
    told.until(["127.0.0.2", "127.0.0.3"], [other])
    again = network.worker("127.0.0.2")
    told.until(["127.0.0.2", "127.0.0.3"], [again, other])
