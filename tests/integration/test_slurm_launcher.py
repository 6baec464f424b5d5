"""Pools whose workers Slurm starts, on a real cluster of this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wool
from support.processes import Script, alive
from support.slurm import Slurm, running_slurm
from support.waiting import until, until_sync
from wool._launchers.slurm import Options, SlurmLauncher
from wool.abc import Launcher
from wool.testing import LauncherSuite

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
        with running_slurm() as slurm:
            yield slurm


@pytest.fixture(autouse=True)
def slurm(cluster: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, of which each test has to leave nothing in use."""
    monkeypatch.setenv("SLURM_CONF", cluster.variables["SLURM_CONF"])
    yield cluster
    left = queue()
    subprocess.run(["scancel", "--user=root"], check=True)
    until_sync(lambda: not queue(), within=30, what="jobs to be gone")
    assert not left


def queue() -> list[str]:
    """The names and states of all jobs."""
    command = ["squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%j %T"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def launcher(**options: Any) -> SlurmLauncher:
    return SlurmLauncher(Options(**options))


@wool.routine
async def where() -> tuple[int, str, str]:
    print("printed by a job")
    return os.getpid(), os.environ["SLURM_JOB_ID"], os.environ["SLURM_CPUS_PER_TASK"]


async def test_jobs_are_workers(slurm: Slurm, capfd: pytest.CaptureFixture[str]) -> None:
    """Each has the resources that were asked for."""
    async with wool.WorkerPool(launcher=launcher(cpus=2), size=2, quorum=2) as pool:
        assert queue() == ["wool RUNNING"] * 2
        results: list[Any] = [result async for _, result in pool.broadcast(where)]
        pids, jobs = {pid for pid, _, _ in results}, {job for _, job, _ in results}
        assert pids == {worker.pid for worker in pool.workers} and len(jobs) == 2
        assert {cpus for _, _, cpus in results} == {"2"}
        assert capfd.readouterr().out.count("] printed by a job\n") == 2
    assert not queue()


@wool.routine
async def hold(begun: Path) -> None:
    begun.touch()
    await asyncio.Event().wait()


async def test_it_is_told_that_slurm_has_cancelled_a_job(tmp_path: Path) -> None:
    async with wool.WorkerPool(launcher=launcher()):
        call = asyncio.create_task(hold(tmp_path / "begun"))
        await until((tmp_path / "begun").exists)
        subprocess.run(["scancel", "--name=wool"], check=True)
        with pytest.raises(wool.WorkerStopped, match="ended by Slurm, which has cancelled step"):
            await call


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cpus": 5}, "Slurm says: CPU count per node can not be satisfied"),
        ({"gres": "gpu:1"}, r"Slurm says: Invalid generic resource \(gres\) specification"),
        ({"time": "soon"}, "Slurm says: Invalid --time specification"),
        ({"python": "/no/python"}, "the nodes have no program /no/python: name their Python by"),
        ({"arguments": ("--begin=now+1hour",)}, r"after 1 s; Slurm says: job \d+ queued and wait"),
    ],
)
async def test_what_is_said_of_jobs_that_do_not_run(options: dict[str, Any], told: str) -> None:
    patience = 1 if "arguments" in options else None
    with pytest.raises(wool.NoWorkersAvailable, match=told):
        async with wool.WorkerPool(launcher=launcher(**options), quorum_timeout=patience):
            pytest.fail("the pool was opened")
    assert not queue()


class TestSlurm(LauncherSuite):
    def launcher(self) -> Launcher:
        return launcher()

    def broken(self) -> tuple[Launcher, str]:
        return launcher(partition="none"), "Slurm says: invalid partition specified: none"

    def left(self) -> object:
        return queue()


PROGRAM = """
import asyncio, os, sys, wool

@wool.routine
async def hold(folder):
    open(f"{folder}/begun", "w").close()
    try:
        await asyncio.Event().wait()
    finally:
        open(f"{folder}/cleaned", "w").close()

async def main():
    async with wool.WorkerPool() as pool:
        print(pool.workers[0].pid, flush=True)
        await hold(sys.argv[1])

asyncio.run(main())
"""


def test_nothing_is_left_when_the_caller_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker runs and cleans up, and another one is still queued."""
    for name, value in {"LAUNCHER": "slurm", "SIZE": "2", "SLURM__CPUS": "3"}.items():
        monkeypatch.setenv(f"WOOL_{name}", value)
    with Script(PROGRAM, tmp_path, str(tmp_path)) as script:
        pid = int(script.line())
        until_sync((tmp_path / "begun").exists)
        until_sync(lambda: sorted(queue()) == ["wool PENDING", "wool RUNNING"], within=30)
        script.process.kill()
        until_sync(lambda: not alive(pid) and not queue(), within=30)
        assert (tmp_path / "cleaned").exists()


INSIDE = """
import asyncio, os, wool

@wool.routine
async def step():
    return os.environ["SLURM_STEP_ID"]

async def main():
    async with wool.WorkerPool(launcher="slurm", quorum=3) as pool:
        steps = [result async for _, result in pool.broadcast(step)]
        print(len(steps), len(set(steps)))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "allocation", [["--ntasks=3", "--mem=500"], ["--cpus-per-task=1", "--ntasks-per-node=3"]]
)
def test_a_pool_in_an_allocation_fills_it(tmp_path: Path, allocation: list[str]) -> None:
    (tmp_path / "program.py").write_text(INSIDE)
    command = ["salloc", "--quiet", *allocation, sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "3 3\n", done.stderr


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(wool.ConfigurationError, match="there is no program 'srun' here"):
            launcher()
