"""Every file in docs/examples runs: as a file, from standard input and with `-c`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

ARGUMENTS = {
    "pipeline": [],
    "quickstart": [],
    "tokenize_stdlib": ["--limit", "20", "--workers", "2"],
}

WITHOUT_TQDM = "import sys; sys.modules['tqdm.asyncio'] = None\n"

WAYS = {
    "file": lambda path: ([str(path)], ""),
    "stdin": lambda path: (["-"], path.read_text()),
    "-c": lambda path: (["-c", path.read_text()], ""),
    "-c without tqdm": lambda path: (["-c", WITHOUT_TQDM + path.read_text()], ""),
}


def run(name: str, way: str, cwd: Path) -> tuple[str, str]:
    command, stdin = WAYS[way](EXAMPLES / f"{name}.py")
    done = subprocess.run(
        [sys.executable, *command, *ARGUMENTS[name]],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("transport", ["unix", "memory", "grpc", "ws"])
@pytest.mark.parametrize("way", ["file", "stdin", "-c"])
def test_quickstart(way: str, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WOOL_TRANSPORT", transport)
    out, err = run("quickstart", way, tmp_path)
    assert out.splitlines() == [
        "1 + 2 = 3",
        "Guess the letter 'q': m (higher), t (lower), p (higher), r (lower), q (found)",
        "3 + 4 = 7",
    ]
    assert err == ""


@pytest.mark.parametrize("transport", ["unix", "memory", "grpc", "ws"])
def test_pipeline(transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WOOL_TRANSPORT", transport)
    out, err = run("pipeline", "file", tmp_path)
    assert out.splitlines() == [
        "reading in this process: True",
        f"'the' three times, says another process: {transport != 'memory'}",
        f"'cat' three times, says another process: {transport != 'memory'}",
        f"'sat' three times, says another process: {transport != 'memory'}",
        "[('cat', 3), ('dog', 2), ('mat', 1), ('sat', 3), ('the', 5)]",
    ]
    assert err == ""


@pytest.mark.parametrize("way", WAYS)
def test_tokenize_stdlib(way: str, tmp_path: Path):
    out, err = run("tokenize_stdlib", way, tmp_path)
    assert "Tokenizing 20 modules" in out
    assert "Most frequent names:" in out
    assert "1 worker: " in out
    assert "2 workers: " in out
    assert "20/20" in err
    assert "Traceback" not in err
    assert "Warning" not in err
