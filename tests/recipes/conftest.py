"""Fixtures for readers who follow the recipes for clusters."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from publishing.walk import File, Walk, steps
from recipes.kit import CLUSTERS, SBIN


@pytest.fixture
def program() -> File:
    """The program that all recipes run."""
    (file,) = (step for step in steps(CLUSTERS / "index.md") if isinstance(step, File))
    assert file.name == "count.py"
    return file


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    path = Path(tempfile.mkdtemp(prefix="wr-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def variables(folder: Path) -> dict[str, str]:
    """What a terminal has in its environment: an installation with `wool` and `python`."""
    bin = folder / "bin"
    bin.mkdir()
    for name, module in (("wool", " -m wool.cli"), ("python", "")):
        (bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (bin / name).chmod(0o755)
    return {"PATH": f"{bin}:{os.environ['PATH']}:{SBIN}"}


@pytest.fixture
def walk() -> Iterator[Walk]:
    """A reader."""
    walk = Walk()
    yield walk
    walk.close()
