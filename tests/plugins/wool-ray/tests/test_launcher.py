"""The launcher on a real cluster of this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import wool
from wool.abc import Launcher
from wool.testing import LauncherSuite
from wool_ray import Options, RayLauncher

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of one node with four CPUs and a tape."""
    folder = tempfile.mkdtemp(prefix="wr-", dir="/tmp")
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", "--port=0", f"--temp-dir={folder}"]
    options = ["--num-cpus=4", '--resources={"tape": 1}', "--include-dashboard=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # the user may have a token for another cluster
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = ""
        while "ray start --address=" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        patch.setenv("RAY_ADDRESS", said.partition("ray start --address='")[2].partition("'")[0])
        yield
    process.terminate()
    process.communicate()
    shutil.rmtree(folder)


class TestRay(LauncherSuite):
    def launcher(self) -> Launcher:
        return RayLauncher(Options())

    def broken(self) -> tuple[Launcher, str]:
        return RayLauncher(Options(python="/no/python")), "has no program /no/python"

    def left(self) -> object:
        command = ["ps", "axww", "-o", "args"]
        running = subprocess.run(command, capture_output=True, text=True).stdout
        return [line for line in running.splitlines() if line.startswith("ray::Host")]


@wool.routine
async def where() -> tuple[str, int]:
    print("printed beside an actor")
    return os.environ["RAY_JOB_ID"], os.getpid()


def test_a_worker_gets_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    """One gets the tape; another one is told of that has to wait, and gets it afterwards."""

    async def use() -> None:
        options = Options(cpus=0.5, resources=("tape=1",))
        async with wool.WorkerPool(launcher=RayLauncher(options), size=1) as pool:
            assert (await where())[1] == pool.workers[0].pid
            with pytest.raises(wool.NoWorkersAvailable, match="no room yet for CPU=0.5, tape=1"):
                async with wool.WorkerPool(launcher=RayLauncher(options), size=1, quorum_timeout=8):
                    pytest.fail("there are two tapes")
        assert "] printed beside an actor\n" in capfd.readouterr().out
        async with wool.WorkerPool(launcher=RayLauncher(options), size=1):
            await where()

    asyncio.run(use())


def test_a_cluster_that_is_not_there() -> None:
    async def use() -> None:
        launcher = RayLauncher(Options(address="127.0.0.1:1"))
        with pytest.raises(wool.NoWorkersAvailable, match="127.0.0.1:1 does not answer yet"):
            async with wool.WorkerPool(launcher=launcher, size=1, quorum_timeout=12):
                pytest.fail("it is there")

    asyncio.run(use())


def test_resources_that_are_none() -> None:
    with pytest.raises(ValueError, match="'tape' is no resource with an amount, such as tpu=1"):
        Options(resources=("tape",))
