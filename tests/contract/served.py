"""Workers that were there before their pool, and can import nothing of the tests."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import wool


@asynccontextmanager
async def workers(transport: str, count: int = 2, **variables: str) -> AsyncIterator[list[str]]:
    """Start `wool worker` processes in an empty folder; yields their addresses."""
    with tempfile.TemporaryDirectory(prefix="w") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOL_TOKEN", wool.Credentials.new_token())
        processes: list[asyncio.subprocess.Process] = []
        try:
            for number in range(count):
                place = f"unix://{folder}/{number}/w"
                address = place if transport == "unix" else f"{transport}://127.0.0.1:0"
                processes.append(await start(Path(folder), address, variables))
            yield [await served_at(process) for process in processes]
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def start(
    folder: Path, address: str, variables: Mapping[str, str]
) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # By its script: `python -m` would put the folder it is started in on the path.
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("wool")),
        "worker",
        "--address",
        address,
        cwd=folder,
        env={**kept, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def served_at(process: asyncio.subprocess.Process) -> str:
    """Return the address of a worker once it serves."""
    assert process.stderr is not None
    said = ""
    while "serves at " not in said:
        line = (await process.stderr.readline()).decode()
        assert line, f"it ended: {said}"
        said += line
    return said.partition("serves at ")[2].partition(",")[0]
