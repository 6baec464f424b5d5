"""The distributions of third parties here are what they claim: strangers, small, and installed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
DISTRIBUTIONS = sorted(path.parent for path in FOLDER.glob("*/pyproject.toml"))
OPEN = {"wool.abc", "wool.plugins"}
"""Of Wool, what the author of a back-end may import."""


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            whole = node.module == "wool"
            yield from (f"wool.{alias.name}" for alias in node.names) if whole else (node.module,)


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_they_see_what_any_stranger_sees(folder: Path) -> None:
    sources = list(folder.glob("src/**/*.py"))
    assert sources
    names = {name for path in sources for name in imported(path)}
    assert {name for name in names if name.split(".")[0] == "wool"} <= OPEN
    tests = {name for path in folder.glob("tests/*.py") for name in imported(path)}
    assert not [name for name in tests if name.startswith("wool._")]


@pytest.mark.parametrize("name", ["wool-redis", "wool-ray"])
def test_a_discovery_or_a_launcher_takes_less_than_200_lines(name: str) -> None:
    sources = FOLDER.glob(f"{name}/src/**/*.py")
    assert sum(len(path.read_text().splitlines()) for path in sources) < 200


def test_they_are_listed() -> None:
    command = [sys.executable, "-m", "wool.cli", "plugins", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    listed = {(row["name"], row["distribution"], row["version"]) for row in rows}
    for folder in DISTRIBUTIONS:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for points in project["entry-points"].values():
            for name in points:
                assert (name, project["name"], project["version"]) in listed
