"""Fixtures that several tests share; their `conftest.py` import them."""

from __future__ import annotations

import configparser
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.processes import children
from support.waiting import until_sync
from wool._pool import supervisor


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder whose path is short: a Unix socket's may have no more than about 100 bytes."""
    path = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, and no file is near."""
    for name in [name for name in os.environ if name.startswith("WOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write_distribution(
    site: Path, name: str, version: str, groups: Mapping[str, Mapping[str, str]]
) -> None:
    """Writes the metadata of a distribution, with entry points by their groups."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = configparser.ConfigParser()
    points.read_dict(groups)
    with (info / "entry_points.txt").open("w") as file:
        points.write(file)


@pytest.fixture
def ends_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known how a worker ended before it is said that it has, however busy the machine is.

    Connections of a process that is killed end before it does, and usually half a second is enough.
    """
    monkeypatch.setattr(supervisor, "EXIT_KNOWN_WITHIN", 20.0)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Nothing that a test started in this process outlives it."""
    before = children(os.getpid())
    yield
    until_sync(lambda: children(os.getpid()) <= before, what="child processes to be gone")
