"""The recipe for Slurm, typed word for word, on a Slurm of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publishing.walk import File, Shell, Walk
from recipes.kit import EXAMPLES, commands_of, meeting
from support.slurm import Slurm, running_slurm

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with running_slurm() as slurm:
        yield slurm


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
