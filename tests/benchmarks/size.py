"""How large the project is, and how long the road of one warm call.

    make size

Prints for each folder how many files, lines and functions it has. Then, for one `await add(1, 2)`
over a Unix socket, how many functions of Wool are called, of how many modules, and how many of
anybody's, built-ins included: at the caller and at the worker. A coroutine counts again each time
that it is resumed.
"""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import wool

ROOT = Path(__file__).parents[2]
SOURCES = "wool-core/src/wool"
CALLS = 200


class Calls(Counter[str]):
    """How many functions were called of each file; that of built-ins is ''."""

    def __bool__(self) -> bool:
        """Has `threading.setprofile` take it while it is empty: new threads are counted, too."""
        return True

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self[frame.f_code.co_filename] += 1
        elif event == "c_call":
            self[""] += 1


@wool.routine
async def add(a: int, b: int) -> int:
    return a + b


@wool.routine
async def counted() -> dict[str, int]:
    """Returns what has been counted in the worker since the last time."""
    calls: Any = sys.getprofile()
    before = dict(calls)
    calls.clear()
    return before


async def serve() -> None:
    """Is a worker whose threads are counted, until standard input is closed."""
    calls = Calls()
    threading.setprofile(calls)
    async with wool.Worker(transport="unix") as worker:
        sys.setprofile(calls)
        print(worker.info.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        sys.setprofile(None)


async def print_calls(address: str) -> None:
    """Prints what one call of many takes."""
    calls = Calls()
    async with wool.WorkerPool(discovery=[address]):
        for _ in range(CALLS):
            await add(1, 2)
        await counted()
        sys.setprofile(calls)
        for _ in range(CALLS):
            await add(1, 2)
        sys.setprofile(None)
        there = await counted()
    print(f"\n{'await add(1, 2)':42}{'of Wool':>8}{'modules':>8}{'of anybody':>11}")
    for name, counts in ("at the caller", calls), ("at the worker", there):
        # Functions that few of the calls need are not on the road.
        ours = [n for file, n in counts.items() if SOURCES in file and n >= CALLS // 2]
        all_of_them = sum(counts.values()) / CALLS
        print(f"{name:42}{sum(ours) / CALLS:8.0f}{len(ours):8}{all_of_them:11.0f}")


def print_folders() -> None:
    """Prints a row for each folder that has Python files of the repository in it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rows: dict[str, Counter[str]] = {}
    for name in listed.splitlines():
        path = ROOT / name
        if not path.is_file():
            continue
        parts = path.relative_to(ROOT).parts[:-1]
        depth = len(Path(SOURCES).parts) + 1 if parts[0].startswith("wool-") else 2
        text = path.read_text()
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        row = Counter(
            files=1,
            lines=text.count("\n"),
            functions=sum(isinstance(node, kinds) for node in ast.walk(ast.parse(text))),
        )
        for folder in ("/".join(parts[:depth]), f"{parts[0]} in all"):
            rows.setdefault(folder, Counter()).update(row)
    print(f"{'':42}{'files':>8}{'lines':>8}{'functions':>11}")
    for folder in sorted(rows):
        row = rows[folder]
        print(f"{folder:42}{row['files']:8}{row['lines']:8}{row['functions']:11}")


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
        return
    print_folders()
    command = [sys.executable, __file__, "serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        asyncio.run(print_calls(process.stdout.readline().strip()))
        process.communicate()


if __name__ == "__main__":
    main()
