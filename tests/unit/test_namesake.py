"""The other distribution called wool, whose files land in the folder of this one's package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wool
from wool import _namesake

OURS = Path(wool.__file__).parent
FOREIGN_INIT = "from wool.exceptions import WoolError\nclass WorkerPool: pass\n"
FOREIGN_ERRORS = "class WoolError(Exception): pass\n"
KIT = "from wool.testing import TransportSuite"
METADATA = "Metadata-Version: 2.1\nName: wool\nVersion: 0.15.7\n"


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A folder with packages in which both are installed, ours last."""
    folder = tmp_path / "packages"
    shutil.copytree(OURS, folder / "wool", ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / "wool-0.15.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (folder / "wool" / "runtime").mkdir()
    return folder


@pytest.fixture
def overwritten(both: Path) -> Path:
    """The same, ours first."""
    (both / "wool" / "__init__.py").write_text(FOREIGN_INIT)
    (both / "wool" / "exceptions.py").write_text(FOREIGN_ERRORS)
    return both


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder.parent,
    )


def test_alone():
    assert _namesake.problem() is None
    _namesake.check()
    with pytest.raises(AttributeError, match="^module 'wool' has no attribute 'LanDiscovery'$"):
        wool.LanDiscovery  # noqa: B018


def test_ours_last(both: Path):
    done = run(both, "-c", "import wool; print(wool.WorkerPool.__name__); wool.LanDiscovery")
    assert done.stdout == "WorkerPool\n"
    error = done.stderr.splitlines()[-1]
    assert error.startswith("AttributeError: module 'wool' has no attribute 'LanDiscovery'; ")
    assert "'wool' 0.15.7" in error
    assert "pip uninstall wool" in error
    assert run(both, "-m", "wool.cli", "token").returncode == 0


@pytest.mark.parametrize("code", ["import wool.abc", "import wool.plugins", "import wool_ws", KIT])
def test_ours_first(overwritten: Path, code: str):
    done = run(overwritten, "-c", code)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: the distribution 'wool' 0.15.7 is installed, too.")
    assert "cannot work" in error
    assert _namesake.MENDED_BY in error


def test_files_missing(both: Path):
    """As ours is left when the other one is uninstalled."""
    shutil.rmtree(both / "wool-0.15.7.dist-info")
    (both / "wool" / "__init__.py").unlink()
    (both / "wool" / "exceptions.py").unlink()
    done = run(both, "-S", "-c", "import wool.cli; wool.cli.main()")
    assert done.stderr.startswith("wool: files of wool-core are missing")
    assert _namesake.MENDED_BY in done.stderr
