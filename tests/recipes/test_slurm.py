"""The recipe for Slurm, typed word for word, on a Slurm of one machine."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from publishing.walk import File, Shell, Walk
from recipes.kit import EXAMPLES, commands_of, meeting, missing, need
from support.waiting import until_sync

pytestmark = pytest.mark.timeout(120)

SLURM = """
ClusterName=wool
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/linear
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
FirstJobId={first}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES OverSubscribe=FORCE State=UP
"""


class Slurm:
    """A cluster of this machine alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        with socket.socket() as one, socket.socket() as other:
            for sock in (one, other):
                sock.bind(("127.0.0.1", 0))
            ports = [sock.getsockname()[1] for sock in (one, other)]
        host = socket.gethostname().partition(".")[0]
        first = 1 + secrets.randbelow(90)  # jobs of other clusters on this machine have other ports
        filled = {"host": host, "cpus": os.cpu_count(), "folder": folder, "first": first}
        text = SLURM.format(controller=ports[0], daemon=ports[1], **filled)
        (folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Starts it, and waits until it takes jobs."""
        key = self.folder / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        places = {"socket": "munge", "key-file": "key", "pid-file": "munged.pid"}
        places |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        options = [f"--{name}={self.folder / file}" for name, file in places.items()]
        self._run("munged", "--foreground", "--force", *options)
        until_sync((self.folder / "munge").exists, within=40, what="munged")
        self._run("slurmctld", "-D", "-c")
        self._run("slurmd", "-D")
        until_sync(self._is_idle, within=60, what=f"the node to be idle\n{self.log()}")

    def _run(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "wb") as out:
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.variables},
                )
            )

    def _is_idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            capture_output=True,
            text=True,
            env={**os.environ, **self.variables},
        )
        return done.stdout.strip() == "idle"

    def log(self) -> str:
        """What its parts have said."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.out"))

    def close(self) -> None:
        """Ends it."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    need(
        ("slurmctld", "slurmctld"),
        ("slurmd", "slurmd"),
        ("sbatch", "slurm-client"),
        ("munged", "munge"),
    )
    if os.geteuid() != 0:
        missing("Slurm's daemons run as root here")
    (folder / "slurm").mkdir()
    slurm = Slurm(folder / "slurm")
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.close()


def test_a_job(
    folder: Path, walk: Walk, program: File, variables: dict[str, str], slurm: Slurm
) -> None:
    walk.shells["login"] = Shell(folder / "login", variables | slurm.variables)
    program = meeting(program, 2, folder / "met")
    (folder / "login" / program.name).write_text(program.text)
    job = (EXAMPLES / "slurm" / "job.sbatch").read_text()
    (folder / "login" / "job.sbatch").write_text(job)
    for command in commands_of("slurm.md"):
        try:
            walk.follow(command)
        except AssertionError as error:
            told = [path.read_text() for path in (folder / "login").glob("slurm-*.out")]
            raise AssertionError(f"{error}\n{told}\n{slurm.log()}") from None
    (out,) = (folder / "login").glob("slurm-*.out")
    lines = out.read_text().splitlines()
    assert sum("serves at grpc://" in line for line in lines) == 2
    assert sum(line.endswith("wool: left") for line in lines) == 2, "they were told to leave"
