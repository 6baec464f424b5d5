"""Builds the distributions, and makes environments to install them into.

Nothing of the working tree is imported there: what counts is what a user would get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("wool-*/pyproject.toml"))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def project(package: str) -> dict[str, Any]:
    """Returns the table `project` of a package's pyproject.toml."""
    return tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]


def uv(*arguments: object, cwd: Path = ROOT) -> str:
    """Runs uv, which downloads no interpreter; returns what it prints.

    Raises:
        AssertionError: it has failed; says why.
    """
    beside = Path(sys.executable).with_name("uv")
    command = [str(beside if beside.exists() else "uv"), *map(str, arguments)]
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", **_all_of_pyenv()}
    environ.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout


@cache
def _all_of_pyenv() -> dict[str, str]:
    """Has pyenv, where it is in use, offer every Python it has instead of the one chosen."""
    if shutil.which("pyenv") is None:
        return {}
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
    return {"PYENV_VERSION": ":".join(listed.stdout.split())}


@cache
def interpreter(version: str) -> str | None:
    """Returns the path of a Python of a minor version; None if there is none."""
    try:
        return uv("python", "find", "--no-project", "--system", version).strip()
    except AssertionError:
        return None


def build(folder: Path) -> Path:
    """Builds the sdist of every package, and from that its wheel, into a folder."""
    with ThreadPoolExecutor(2) as executor:
        list(
            executor.map(lambda name: uv("build", "-q", "--package", name, "-o", folder), PACKAGES)
        )
    return folder


def wheels(dist: Path, packages: Iterable[str] = PACKAGES) -> list[Path]:
    """Returns the wheels of packages."""
    return [next(dist.glob(f"{name.replace('-', '_')}-*.whl")) for name in packages]


def lowest(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Returns the oldest versions that packages say they work with, as constraints."""
    wanted: set[str] = set()
    for package in packages:
        found = project(package)
        extras: dict[str, list[str]] = found.get("optional-dependencies", {})
        wanted.update(found["dependencies"])
        wanted.update(*(needs for extra, needs in extras.items() if extra != "testing"))
    return sorted(name.replace(">=", "==") for name in wanted if not name.startswith("wool-"))


class Environment:
    """A fresh environment of an interpreter."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        uv("venv", "-q", "--no-project", "--python", python, folder)

    @property
    def bin(self) -> Path:
        """Where its commands are."""
        return self.folder / "bin"

    def install(self, *arguments: object, constraints: Iterable[str] = ()) -> None:
        """Installs what the arguments say."""
        file = self.folder / "constraints.txt"
        file.write_text("".join(f"{line}\n" for line in constraints))
        target = ("--python", self.bin / "python", "--constraints", file)
        uv("pip", "install", "-q", *target, *arguments)

    def run(self, *arguments: object, **variables: str) -> str:
        """Runs one of its commands away from the working tree; returns what it prints.

        Raises:
            AssertionError: it has failed, or has written to standard error.
        """
        command = [str(self.bin / str(arguments[0])), *map(str, arguments[1:])]
        kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            env={**kept, "PATH": path, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=self.folder,
        )
        assert done.returncode == 0 and not done.stderr, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout
