"""Scripts run as `__main__` in every way there is, without a guard; they compare by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.support import PLACES

SCRIPTS = Path(__file__).parent / "scripts"
#: Each script, and how many outcomes it compares.
COMPARED = {
    "main_plain": 2,
    "main_functions": 12,
    "main_classes": 6,
    "main_exceptions": 9,
    "main_generators": 6,
    "main_globals": 7,
    "main_runs": 7,
}


def run(script: str, how: str, place: str, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    path = SCRIPTS / f"{script}.py"
    arguments, source, cwd = {
        "file": ([str(path)], None, elsewhere),
        "stdin": (["-"], path.read_text(encoding="utf-8"), SCRIPTS),
        "-c": (["-c", path.read_text(encoding="utf-8")], None, SCRIPTS),
        "-m": (["-m", script], None, SCRIPTS),
    }[how]
    return subprocess.run(
        [sys.executable, *arguments, place],
        input=source or "",
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=40,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["file", "stdin", "-c", "-m"])
@pytest.mark.parametrize("script", COMPARED)
def test_a_script(script: str, how: str, place: str, tmp_path: Path) -> None:
    finished = run(script, how, place, tmp_path)
    printed = ["imported"] if script == "main_plain" else []
    assert finished.stderr == ""
    assert finished.returncode == 0
    assert finished.stdout.splitlines() == [*printed, f"same {COMPARED[script]}"]
    assert list(tmp_path.iterdir()) == []
