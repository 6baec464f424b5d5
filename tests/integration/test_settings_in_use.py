"""Settings reach the pool and its workers: the nearest voice counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, sys, wool

@wool.routine
async def loop():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

async def main():
    async with wool.WorkerPool(transport=sys.argv[1] if len(sys.argv) > 1 else None) as pool:
        print(pool.workers[0].address.partition(":")[0], len(pool.workers), await loop())

asyncio.run(main())
"""

PYPROJECT = """
[tool.wool]
transport = "ws"
size = 1
loop = "asyncio"

[tool.wool.ws]
path = "/work"
"""


def run(folder: Path, *arguments: str, code: str = SCRIPT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_argument_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WOOL_TRANSPORT", raising=False)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert run(below) == "ws+unix 1 asyncio"
    monkeypatch.setenv("WOOL_TRANSPORT", "grpc")
    assert run(below) == "grpc+unix 1 asyncio"
    assert run(below, "unix") == "unix 1 asyncio"
    monkeypatch.setenv("WOOL_LOOP", "uvloop")
    assert run(below, "memory").split()[:2] == ["memory", "1"]
    assert run(below, "unix") == "unix 1 uvloop"


def test_a_wrong_name_is_blamed_on_the_file_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each kind of back-end, as for all other settings; or on the variable."""
    monkeypatch.delenv("WOOL_TRANSPORT", raising=False)
    file = tmp_path / "pyproject.toml"
    for kind, wrong, right in (
        ("transport", "grcp", "grpc"),
        ("discovery", "zeroconv", "zeroconf"),
        ("serializer", "cloudpickel", "cloudpickle"),
    ):
        file.write_text(f'[tool.wool]\n{kind} = "{wrong}"\n')
        says = f"There is no {kind} {wrong!r}. Did you mean {right!r}?"
        assert f"ConfigurationError: {file} [tool.wool]: {says}" in failing(tmp_path)
        assert f"{file} [tool.wool]: {says}" in failing(tmp_path, "-m", "wool.cli", "config")
    file.unlink()
    monkeypatch.setenv("WOOL_TRANSPORT", "grcp")
    expected = "ConfigurationError: environment variable WOOL_TRANSPORT: There is no transport"
    assert expected in failing(tmp_path)


def failing(folder: Path, *command: str) -> str:
    """Runs a program that must fail; returns what it says last."""
    done = subprocess.run(
        [sys.executable, *(command or ("-c", SCRIPT))],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


SLOW_TO_CLEAN_UP = """
import asyncio, sys, wool

@wool.routine
async def stay():
    try:
        yield
    finally:
        await asyncio.sleep(TAKES)
        print("clean")

async def main():
    async with wool.WorkerPool(size=1, transport=sys.argv[1]):
        await anext(stay())
        raise KeyError

try:
    asyncio.run(main())
except KeyError:
    print("left")
"""


@pytest.mark.parametrize(
    ("transport", "grace", "takes", "told"),
    [
        ("unix", "0", "9", "left"),
        ("memory", "0", "9", "left"),
        ("unix", "40", "4", "clean\nleft"),  # longer than a process gets that has nothing to do
    ],
)
def test_the_grace_of_calls_when_a_pool_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    grace: str,
    takes: str,
    told: str,
) -> None:
    """By an exception: a call gets as long as is set to clean up, and no longer."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", grace)
    code = SLOW_TO_CLEAN_UP.replace("TAKES", takes)
    assert run(tmp_path, transport, code=code) == told
