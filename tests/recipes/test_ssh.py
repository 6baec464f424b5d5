"""The recipe for workers over SSH, typed word for word, with a real server on another machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from publishing.walk import File, Shell, Walk
from recipes.kit import commands_of, follow, need
from support.network import Host, lan
from support.processes import alive
from support.waiting import until

pytestmark = pytest.mark.timeout(120)

SERVER = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PermitUserEnvironment no
SetEnv PATH={path}
ForceCommand cd {folder}/home && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""

CLIENT = """
Host beta
    HostName {address}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking accept-new
    LogLevel ERROR
"""


@asynccontextmanager
async def serving(host: Host, folder: Path, variables: dict[str, str]) -> AsyncIterator[None]:
    """Has a machine serve SSH, and `ssh` call it beta."""
    (folder / "home").mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    filled = {"address": host.address, "folder": folder, "path": variables["PATH"]}
    (folder / "sshd_config").write_text(SERVER.format(**filled))
    (folder / "config").write_text(CLIENT.format(**filled))
    client = folder / "bin" / "ssh"
    client.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
    client.chmod(0o755)
    os.makedirs("/run/sshd", exist_ok=True)  # where it puts itself before anybody logs in
    log = folder / "sshd.log"
    server = host.popen(["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config"), "-E", str(log)])

    def ready() -> bool:
        assert server.poll() is None, log.read_text()
        return log.exists() and "Server listening" in log.read_text()

    await until(ready, within=40, what="the SSH server")
    yield
    server.kill()


async def test_over_ssh(folder: Path, walk: Walk, program: File, variables: dict[str, str]) -> None:
    """Both terminals are in one folder; who comes to `beta` is in another one."""
    need(("sshd", "openssh-server"), ("ssh", "openssh-client"))
    home = folder / "home"
    token = home / "wool-token"
    async with lan(2) as (alpha, beta), serving(beta, folder, variables):
        for name in ("one", "two"):
            prefix = ["ip", "netns", "exec", alpha.name]
            walk.shells[name] = Shell(folder / "here", variables, prefix)
        (folder / "here" / program.name).write_text(program.text)
        try:
            for command in commands_of("ssh.md"):
                follow(walk, command)
            assert token.read_text() == (folder / "here" / "wool-token").read_text()
            assert token.stat().st_mode & 0o077 == 0
            assert len(workers_in(home)) == 1
            walk.shells.pop("one").close()
            await until(lambda: not workers_in(home), within=30, what="the worker to leave")
        finally:
            walk.close()
            walk.shells.clear()


PROGRAM = """
import asyncio, os, wool

@wool.routine
async def where():
    return os.getpid()

async def main():
    async with wool.WorkerPool(launcher="ssh") as pool:
        print(await where(), pool.workers[0].address, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_workers_on_a_machine_with_two_networks(
    folder: Path, variables: dict[str, str]
) -> None:
    """The pool dials the address that SSH did, which is not that of the default route."""
    need(("sshd", "openssh-server"), ("ssh", "openssh-client"))
    async with lan(2) as (alpha, beta), serving(beta, folder, variables):
        for host, number in ((alpha, 1), (beta, 2)):
            host.run(["ip", "address", "add", f"10.98.0.{number}/24", "dev", "eth0"])
        beta.run(["ip", "route", "add", "prohibit", "10.99.0.1"])
        config = folder / "config"
        config.write_text(config.read_text().replace(beta.address, "10.98.0.2"))
        caller = alpha.popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **variables, "WOOL_SSH__HOSTS": "beta"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert caller.stdout is not None
        pid, address = (await asyncio.to_thread(caller.stdout.readline)).split()
        assert urlsplit(address).hostname == "10.98.0.2"
        caller.kill()
        await until(lambda: not alive(int(pid)), within=30, what="the worker to end")


def workers_in(folder: Path) -> list[int]:
    """The processes of `wool worker` that have their working directory there."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"wool.cli" in words and b"wool-token" in words:
                if Path(os.readlink(entry / "cwd")) == folder:
                    found.append(int(entry.name))
    return found
