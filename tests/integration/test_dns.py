"""The discovery `dns` with a real name server, whose records change, and workers that come and go.

Server, workers and callers live in a network namespace of their own, in which the resolver asks
that server, at its usual port.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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

COUNT = """
import asyncio
from wool._plugins import lookup
from wool._settings.settings import Settings
from wool._worker.backends import choose_discovery

async def main():
    chosen = choose_discovery(Settings.read(lookup.names), "dns")
    async with chosen.backend.watch() as events:
        print(*(worker.address for worker in (await anext(events)).workers))

asyncio.run(main())
"""


class Network:
    """A network of its own, with a name server that can be stopped and told new records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = folder / "records"
        self._records.write_text("")
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:10 attempts:1\n")
        script = (
            f"ip link set lo up && mount --bind {folder}/resolv.conf /etc/resolv.conf && echo up "
            "&& exec sleep infinity"
        )
        flags = ["--net", "--mount"]
        if os.geteuid():
            flags += ["--user", "--map-root-user"]
        self._holder = self._popen(["unshare", *flags, "sh", "-c", script], text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            self.close()
            missing("a network namespace could not be made")
        flags = ["--target", str(self._holder.pid), "--net", "--mount"]
        if os.geteuid():
            flags += ["--user", "--preserve-credentials"]
        self._enter = ["nsenter", *flags, f"--wd={folder}", "--"]
        self._running: list[subprocess.Popen[Any]] = []
        self._server: subprocess.Popen[Any] | None = None

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, **options)

    def start(self, command: list[str], **variables: str) -> subprocess.Popen[str]:
        """Starts a program in the network; it is killed in the end."""
        process = subprocess.Popen(
            [*self._enter, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**{"WOOL_DNS__NAME": NAME, "WOOL_DNS__INTERVAL": "0.1", **variables}),
        )
        self._running.append(process)
        return process

    def run(self, command: list[str], **variables: str) -> tuple[int, str, str]:
        process = self.start(command, **variables)
        out, err = process.communicate(timeout=50)
        return process.returncode, out, err

    def serve(self) -> None:
        """Starts the name server."""
        command = SERVER.format(records=self._records, log=self.folder / "log").split()
        self._server = subprocess.Popen([*self._enter, *command])
        probe = "import socket; socket.create_connection(('127.0.0.1', 53)).close()"
        until_sync(
            lambda: (
                subprocess.run(
                    [*self._enter, sys.executable, "-c", probe], capture_output=True
                ).returncode
                == 0
            ),
            within=30,
            what="the name server",
        )

    def silence(self) -> None:
        """Kills the name server."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def resolves_to(self, *addresses: str) -> None:
        """Changes the records of the name."""
        new = self._records.with_suffix(".new")
        new.write_text("".join(f"{address} {NAME}\n" for address in addresses))
        new.rename(self._records)
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGHUP)  # has it read them

    def worker(self, host: str) -> subprocess.Popen[str]:
        """Starts a worker as in a pod: all listen at the same port of hosts of their own."""
        process = self.start([*CLI, "worker", "--address", f"ws://{host}:7000"])
        assert process.stderr is not None
        assert "serves at" in process.stderr.readline()
        return process

    def close(self) -> None:
        for process in (*getattr(self, "_running", ()), getattr(self, "_server", None)):
            if process is not None:
                process.kill()
                process.wait()
                for pipe in (process.stdout, process.stderr):
                    if pipe is not None:
                        pipe.close()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def missing(what: str) -> None:
    (pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip)(what)


@pytest.fixture
def network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for tool, package in [("dnsmasq", "dnsmasq-base"), ("ip", "iproute2"), ("unshare", "mount")]:
        if shutil.which(tool) is None:
            missing(f"{tool} is missing: install it, with `apt-get install {package}` on Debian")
    network = Network(folder)
    yield network
    network.close()


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


def test_more_records_than_fit_a_packet(network: Network) -> None:
    addresses = [f"127.1.{n // 200}.{n % 200 + 1}" for n in range(1000)]
    network.resolves_to(*addresses, "fd00::1")
    network.serve()
    command = [sys.executable, "-c", COUNT]
    code, out, err = network.run(command)
    assert code == 0, err
    assert set(out.split()) == {f"grpc://{host}:7000" for host in [*addresses, "[fd00::1]"]}
    code, out, err = network.run(command, WOOL_DNS__FAMILY="ipv6", WOOL_DNS__SCHEME="ws")
    assert out.split() == ["ws://[fd00::1]:7000"], err


def test_wool_workers_says_what_is_wrong(network: Network) -> None:
    network.resolves_to("127.0.0.2")
    code, out, err = network.run([*CLI, "workers", "--discovery", "dns"])
    assert (code, out) == (1, "")
    assert f"the discovery 'dns' fails: OSError: '{NAME}' cannot be resolved" in err
    network.serve()
    code, out, err = network.run([*CLI, "workers", "--discovery", "dns"], WOOL_DNS__SCHEME="ws")
    assert code == 1, err
    assert "ws://127.0.0.2:7000" in out and "nobody listens there" in out
    network.worker("127.0.0.2")
    code, out, err = network.run([*CLI, "workers", "--discovery", "dns"], WOOL_DNS__SCHEME="ws")
    assert code == 0, out + err
    network.resolves_to()
    code, out, err = network.run([*CLI, "workers", "--discovery", "dns"])
    assert (code, out) == (1, "the discovery 'dns' has found no workers\n"), err
