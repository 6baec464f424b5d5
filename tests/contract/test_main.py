"""Scripts run as `__main__` in every way there is, without a guard; they compare by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.parity import NEAR, PLACES

SCRIPTS = Path(__file__).parent / "scripts"
TRANSPORTS = sorted({place.partition("+")[0] for place in PLACES}, key=PLACES.index)

#: Each script, and how many outcomes it compares.
COMPARED = {
    "main_plain": 2,
    "main_functions": 15,
    "main_classes": 9,
    "main_sentinels": 4,
    "main_globals": 7,
    "main_context": 7,
    "main_runs": 7,
}


def run(
    *arguments: str | Path, source: str = "", cwd: Path = SCRIPTS
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        input=source,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )


def said(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """Returns what it printed, provided that it has no complaints."""
    assert finished.stderr == ""
    assert finished.returncode == 0
    return finished.stdout.splitlines()


@pytest.mark.parametrize(
    ("how", "place", "script"),
    # How a script is started is no concern of a transport, nor is most of what a script compares.
    [
        (how, place, script)
        for script in COMPARED
        for how in ("file", "stdin", "-c", "-m")
        for place in TRANSPORTS
        if how == "file" or (place == "unix" and script in ("main_plain", "main_globals"))
        if place in NEAR or script == "main_functions"
    ],
)
def test_a_script(script: str, how: str, place: str, tmp_path: Path) -> None:
    path = SCRIPTS / f"{script}.py"
    if how == "file":
        finished = run(path, place, cwd=tmp_path)
    elif how == "stdin":
        finished = run("-", place, source=path.read_text(encoding="utf-8"))
    elif how == "-c":
        finished = run("-c", path.read_text(encoding="utf-8"), place)
    else:
        finished = run("-m", script, place)
    printed = ["imported"] if script == "main_plain" else []
    assert said(finished) == [*printed, f"same {COMPARED[script]}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", TRANSPORTS)
def test_a_package(place: str) -> None:
    assert said(run("-m", "main_package", place)) == ["same 2"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("place", [place for place in TRANSPORTS if place != "memory"])
def test_output_of_routines(place: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of workers are whole, come once, and do not wait for the worker's end.

    Threads of one process share a stream, so in `memory` they mix as those of any program do.
    """
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    lines = said(run("main_output.py", place))
    assert sorted(lines) == [
        *(f"generator {n}" for n in range(2)),
        *(f"routine {n}" for n in range(4)),
        "same 6",
    ]


@pytest.mark.parametrize("place", [place for place in TRANSPORTS if place in NEAR])
@pytest.mark.parametrize("script", ["main_functions", "main_runs"])
def test_a_script_in_development_mode(script: str, place: str) -> None:
    """Warnings are shown and asyncio looks for mistakes: there is nothing to complain about."""
    finished = run("-X", "dev", "-W", "error", f"{script}.py", place)
    complaints = finished.stderr.splitlines()  # but for slow imports on a slow machine
    finished.stderr = "\n".join(c for c in complaints if not c.startswith("Executing <"))
    assert said(finished) == [f"same {COMPARED[script]}"]


COLUMNS = """
import asyncio, json, wool

@wool.routine
async def parse(text):
    return json.loads(text)

async def main():
    async with wool.WorkerPool(1):
        try:
            await parse("{x")
        except json.JSONDecodeError as error:
            print(error.pos)

asyncio.run(main())
"""


def test_exceptions_without_columns() -> None:
    """Workers keep the columns that tracebacks underline, and their caller does not."""
    assert said(run("-X", "no_debug_ranges", "-c", COLUMNS)) == ["1"]
