"""Pools whose workers are started over SSH, with a real server."""

from __future__ import annotations

import importlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wool
from recipes.kit import need
from support.waiting import until, until_sync
from wool._launchers.ssh import Options, SshLauncher
from wool.abc import Launcher
from wool.testing import LauncherSuite

pytestmark = pytest.mark.timeout(90)

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
"""

CLIENT = """
Host beta gamma
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking accept-new
    LogLevel ERROR
Host down
    HostName 127.0.0.1
    Port 1
"""


@pytest.fixture(scope="module")
def client() -> Iterator[tuple[str, ...]]:
    """The `ssh` of a user who can log in at beta and gamma, which are this machine."""
    need(("sshd", "openssh-server"), ("ssh", "openssh-client"))
    folder = Path(tempfile.mkdtemp(prefix="ws-", dir="/tmp"))
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        filled = {"port": free.getsockname()[1], "folder": folder}
    (folder / "sshd_config").write_text(SERVER.format(**filled))
    (folder / "config").write_text(CLIENT.format(**filled))
    os.makedirs("/run/sshd", exist_ok=True)  # where it puts itself before anybody logs in
    log = folder / "log"
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None
    server = subprocess.Popen([sshd, "-D", "-f", folder / "sshd_config", "-E", log])

    def ready() -> bool:
        assert server.poll() is None, log.read_text()
        return log.exists() and "Server listening" in log.read_text()

    until_sync(ready, what="the SSH server")
    yield ("ssh", "-F", str(folder / "config"))
    server.kill()
    server.wait()
    shutil.rmtree(folder)


ROUTINES = """
import os, wool

def helper(number):
    return number + 1

@wool.routine
async def where(number):
    print("printed elsewhere")
    return helper(number), os.getpid(), os.environ["SSH_CONNECTION"] and os.environ.get("DEVICE")

"""


@pytest.fixture
def routines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that workers lack."""
    name = f"routines_{secrets.token_hex(4)}"
    (tmp_path / f"{name}.py").write_text(ROUTINES)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    del sys.modules[name]


def launcher(client: tuple[str, ...], *hosts: str, **options: Any) -> SshLauncher:
    return SshLauncher(Options(hosts=hosts, command=client, **options))


async def test_workers_over_ssh(
    client: tuple[str, ...], routines: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Code travels, prints come back, and one that is killed is replaced."""
    over_ssh = launcher(client, "beta:2", "gamma")
    async with wool.WorkerPool(launcher=over_ssh, quorum=3, environment={"DEVICE": "3"}) as pool:
        assert len(pool.workers) == 3
        assert all(worker.address.startswith(("ws", "grpc")) for worker in pool.workers)
        pids = {worker.pid for worker in pool.workers}
        results = [result async for _, result in pool.broadcast(routines.where, 1)]
        assert {pid for _, pid, _ in results} == pids
        assert {(number, device) for number, _, device in results} == {(2, "3")}
        assert capfd.readouterr().out.count("] printed elsewhere\n") == 3
        os.kill(victim := min(pids), signal.SIGKILL)
        await until(lambda: {w.pid for w in pool.workers} > pids - {victim}, within=30)
        pids |= {worker.pid for worker in pool.workers}
    assert not {pid for pid in pids if os.path.exists(f"/proc/{pid}")}


async def test_a_pool_that_grows_and_shrinks(client: tuple[str, ...], routines: Any) -> None:
    """A host that was left is used again, and nothing is left there meanwhile."""
    over_ssh = launcher(client, "beta", "gamma")
    async with wool.WorkerPool(size=(0, 2), idle=0.1, launcher=over_ssh) as pool:
        for _ in range(2):
            await pool.wait(2, timeout=30)
            pids = {worker.pid for worker in pool.workers}
            assert (await routines.where(1))[0] == 2
            await until(lambda: not pool.workers)
            await until(lambda p=pids: not any(os.path.exists(f"/proc/{pid}") for pid in p))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hosts": "down"}, "down says: ssh: connect to host .* Connection refused"),
        ({"python": "/no/python"}, "beta has no program /no/python: name its Python by `python`"),
        ({"python": "{other}"}, r"fake on .* cannot be used: it is Python 3\.9, and the pool has"),
        ({"python": "{bare}"}, "cannot be used: No module named 'wool': install wool-core there"),
    ],
)
async def test_what_is_said_of_a_machine_that_is_of_no_use(
    client: tuple[str, ...], tmp_path: Path, options: dict[str, str], told: str
) -> None:
    written = {
        "other": "import sys; sys.version_info = (3, 9); sys.executable = 'fake'",
        "bare": "import sys; sys.path[:] = [p for p in sys.path if 'wool' not in p and "
        "'site-packages' not in p]; sys.meta_path[:] = [m for m in sys.meta_path if 'ditable' not "
        "in str(m)]",
    }
    paths = {}
    for name, code in written.items():
        path = paths[name] = tmp_path / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}\n$2" "$3"\n')
        path.chmod(0o755)
    given = {key: value.format(**paths) for key, value in options.items()}
    hosts = given.pop("hosts", "beta")
    with pytest.raises(wool.NoWorkersAvailable, match=told):
        async with wool.WorkerPool(launcher=launcher(client, hosts, **given)):
            pytest.fail("the pool was opened")


async def test_a_machine_that_is_down_beside_others(
    client: tuple[str, ...], routines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool works without it, and says so."""
    async with wool.WorkerPool(launcher=launcher(client, "down", "beta"), quorum=1) as pool:
        assert (await routines.where(1))[1] == pool.workers[0].pid
        await until(lambda: "a worker could not be started" in caplog.text, within=30)
        assert "down says: ssh: connect to host" in caplog.text


async def test_a_transport_that_stays_here(client: tuple[str, ...]) -> None:
    with pytest.raises(wool.ConfigurationError, match="'unix' does not reach"):
        async with wool.WorkerPool(launcher=launcher(client, "beta"), transport="unix"):
            pytest.fail("the pool was opened")


class TestSsh(LauncherSuite):
    @pytest.fixture(autouse=True)
    def _known_to_other_processes(
        self, client: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEST_CLIENT", shlex.join(client))

    def launcher(self) -> Launcher:
        return launcher(tuple(shlex.split(os.environ["TEST_CLIENT"])), "beta:2")

    def broken(self) -> tuple[Launcher, str]:
        client = tuple(shlex.split(os.environ["TEST_CLIENT"]))
        return launcher(client, "down"), "down says: ssh: connect to host"


@pytest.mark.parametrize("host", ["", ":4", "beta:0", "beta:x", "-oProxyCommand=x"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="is no host with a number of workers"):
        Options(hosts=(host,))
