"""The tutorial, followed word for word in a scratch environment with the built wheels only."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from publishing.kit import PACKAGES, ROOT, project, wheels
from publishing.walk import Command, File, Shell, Walk, matches, steps
from support.network import lan

PAGE = ROOT / "docs" / "tutorial.md"
ALONE = [step for step in steps(PAGE) if isinstance(step, File) or not step.machine]
TOGETHER = [step for step in steps(PAGE) if isinstance(step, Command) and step.machine]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def walk(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """A reader who has followed what happens on one machine."""
    folder = tmp_path_factory.mktemp("tutorial")
    constraints = folder / "constraints.txt"  # pip gets Wool from the wheels, the rest as ever
    constraints.write_text("".join(f"{n}=={project(n)['version']}\n" for n in PACKAGES))
    python = Path(os.path.realpath(sys.executable)).parent  # the one that `python3` shall be
    variables = {
        "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(constraints),
        "PIP_FIND_LINKS": str(dist),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    walk = Walk()
    walk.shells[""] = Shell(folder / "alpha", variables)
    try:
        for step in ALONE:
            walk.follow(step, patience=240)
        yield walk
    finally:
        walk.close()


def test_on_one_machine(walk: Walk, dist: Path):
    assert len([step for step in ALONE if isinstance(step, Command)]) >= 8
    [installed] = walk.shells[""].folder.glob(".venv/lib/*/site-packages/wool/abc.py")
    with zipfile.ZipFile(*wheels(dist, ["wool-core"])) as wheel:
        assert wheel.read("wool/abc.py") == installed.read_bytes()


async def test_on_several(walk: Walk):
    """Each machine has a network of its own, and nothing of the other's but the installation."""
    alpha = walk.shells[""].folder
    variables = {"PATH": f"{alpha / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    async with lan(2) as hosts:
        for name, host in zip(["alpha", "beta"], hosts, strict=True):
            prefix = ["ip", "netns", "exec", host.name]
            walk.shells[name] = Shell(alpha.parent / name, variables, prefix)
        for step in TOGETHER:
            walk.follow(step)
        assert not list(walk.shells["beta"].folder.iterdir())


def test_extras_of_the_tutorial_exist():
    [install] = [s for s in ALONE if isinstance(s, Command) and s.text.startswith("pip install")]
    named = install.text.partition("[")[2].partition("]")[0].split(",")
    assert set(named) <= set(project("wool-core")["optional-dependencies"])


def test_matching():
    assert matches(["a", "…", "c…"], ["a", "b", "b", "cd"])
    assert matches([], [])
    assert not matches([], ["a"])
    assert not matches(["a…"], ["b"])
