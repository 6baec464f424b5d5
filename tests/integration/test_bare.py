"""Where POSIX is missing: calls, and workers that a program serves itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wool._launchers.local import LocalLauncher
from wool._worker.process import WorkerProcess
from wool.exceptions import ConfigurationError

HERE = Path(__file__).parent
PROGRAM = """
import asyncio
import secrets
import wool


@wool.routine
async def add(x, y):
    return x + y


@wool.routine
async def count(n):
    for i in range(n):
        yield i


async def use():
    return await add(1, 2), [i async for i in count(3)]


async def main():
    async with wool.WorkerPool(size=2, transport="memory"):
        print(await use())
    token = wool.Credentials.token(wool.Credentials.new_token())
    for transport in "ws", "grpc":
        async with wool.Worker(address=f"{transport}://127.0.0.1:0", credentials=token) as worker:
            async with wool.WorkerPool(discovery=[worker.info.address], credentials=token):
                print(await use())


asyncio.run(main())
"""


def test_a_program_without_what_only_posix_has(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "barekit.py", program],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "(3, [0, 1, 2])\n" * 3


async def test_processes_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="cannot start worker processes on Windows yet"):
        WorkerProcess(LocalLauncher(), 0)


WITHOUT_LIBFFI = """
import asyncio
import wool


@wool.routine
async def add(x, y):
    return x + y


async def main():
    async with wool.WorkerPool(size=1, discovery="shm"):
        print(await add(1, 2))


asyncio.run(main())
"""


@pytest.mark.parametrize("program", [["-c", WITHOUT_LIBFFI], ["-m", "wool.cli", "doctor"]])
def test_a_python_without_libffi(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it was built where the headers were missing: it has no `ctypes`."""
    (tmp_path / "_ctypes.py").write_text("raise ModuleNotFoundError(__name__)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, timeout=50, cwd=tmp_path
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == "3\n" or "ok       pool: starts a process" in done.stdout
