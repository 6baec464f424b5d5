"""The launcher `slurm`: each worker is a job of a Slurm cluster, or a step of the program's job."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from wool.abc import ConfigurationError, Launcher
from wool.plugins import API, LauncherPlugin, hookimpl

_TIED = """\
import ctypes, os, sys
os.setsid()
ctypes.CDLL(None).prctl(1, 14)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Runs `srun` out of reach of the terminal's Ctrl-C, and gives it SIGALRM when its parent dies.

A running `srun` ignores that: the worker sees that its standard input ends, and cleans up. One that
is still queued, and does not look at its standard input, takes itself out of the queue.
"""

_STEP = ("--exact", "--mem=0")
"""A step takes the CPUs that it needs, and no memory for itself: all steps but one would wait."""

_CANCELLED = re.compile(r"\*\*\* (JOB|STEP) (\S+) ON \S+ CANCELLED AT \S+?(?: DUE TO (.+?))? \*")
_PREFIX = re.compile(r"^(?:srun|slurmstepd-[^:]*): (?:error: |fatal: )?")
_CHATTER = re.compile(
    r"job \d+ has been allocated|task 0: Exited|Force Terminated|Waiting up to|forcing job"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of the launcher."""

    partition: Annotated[str, "Where workers are queued; unset: as Slurm is set up."] = ""
    account: Annotated[str, "The account to charge; unset: as Slurm is set up."] = ""
    time: Annotated[str, "How long a worker may run, as `minutes` or `h:mm:ss`."] = ""
    cpus: Annotated[int | None, "CPUs of a worker; unset: as Slurm or the job is set up."] = None
    gres: Annotated[str, "What else a worker needs, as `gpu:1`."] = ""
    arguments: Annotated[tuple[str, ...], "More arguments for `srun`."] = ()
    python: Annotated[str, "The interpreter there; unset: the path of this one."] = ""


class SlurmLauncher(Launcher):
    """Starts each worker by an `srun` of its own."""

    elsewhere = True

    def __init__(self, options: Options) -> None:
        if shutil.which("srun") is None:
            raise ConfigurationError(
                "there is no program 'srun' here, by which workers are to be started: this "
                "machine is none from which the Slurm cluster can be used"
            )
        job = "SLURM_JOB_ID" in os.environ
        tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_TASKS_PER_NODE", "1"))
        self.slots = sum(int(one) * int(nodes or 1) for one, nodes in tasks) if job else None
        cpus = options.cpus or os.environ.get("SLURM_CPUS_PER_TASK") if job else options.cpus
        named = {
            "partition": "" if job else options.partition,
            "account": "" if job else options.account,
            "time": options.time,
            "cpus-per-task": cpus,
            "gres": options.gres,
        }
        given = [f"--{name}={value}" for name, value in named.items() if value]
        self._options = [*(_STEP if job else ()), *given, *options.arguments]
        self._python = options.python or sys.executable

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        tied = [sys.executable, "-IS", "-c", _TIED, str(os.getpid())]
        srun = ["srun", "--job-name=wool", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1"]
        # Not a line at a time: what a worker reports has no lines.
        return [*tied, *srun, "--unbuffered", *self._options, self._python, *arguments]

    def explain(self, slot: int, code: int | None, said: str) -> str:
        if "execve()" in said:
            return (
                f"the nodes have no program {self._python}: name their Python by `python` in "
                "[tool.wool.slurm] or WOOL_SLURM__PYTHON"
            )
        lines = [_PREFIX.sub("", line) for line in said.splitlines()]
        told = "; ".join(line for line in lines if not _CHATTER.search(line))
        return f"Slurm says: {told}" if told else ""

    def explain_loss(self, slot: int, code: int, said: str) -> str:
        found = _CANCELLED.search(said)
        if found is None:
            return ""
        kind, number, reason = found.groups()
        due = f" due to {reason.lower()}" if reason else ""
        return f"was ended by Slurm, which has cancelled {kind.lower()} {number}{due}"


def make(options: Options) -> Launcher:
    return SlurmLauncher(options)


@hookimpl
def wool_launchers() -> Iterable[LauncherPlugin]:
    yield LauncherPlugin(name="slurm", api=API, options=Options, factory=make)
