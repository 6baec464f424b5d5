"""A real Slurm of this machine alone, which has four CPUs as far as it knows."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from recipes.kit import missing, need
from support.waiting import until_sync

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
KillWait=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
FirstJobId={first}
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES OverSubscribe=NO State=UP
SlurmdParameters=config_overrides
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
        filled = {"host": host, "folder": folder, "first": first}
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


@contextlib.contextmanager
def running_slurm() -> Generator[Slurm]:
    """Runs one, or skips the test."""
    need(
        ("slurmctld", "slurmctld"),
        ("slurmd", "slurmd"),
        ("sbatch", "slurm-client"),
        ("munged", "munge"),
    )
    if os.geteuid() != 0:
        missing("Slurm's daemons run as root here")
    folder = Path(tempfile.mkdtemp(prefix="wl-", dir="/tmp"))
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.close()
        shutil.rmtree(folder)
