"""Where the recipes are, and what it takes to follow them."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from publishing.walk import Command, File, Walk, steps

DOCS = Path(__file__).parents[2] / "docs"
CLUSTERS = DOCS / "clusters"
EXAMPLES = DOCS / "examples"
SBIN = "/usr/sbin:/sbin"


def commands_of(page: str) -> list[Command]:
    """What a page has its reader type."""
    return [step for step in steps(CLUSTERS / page) if isinstance(step, Command)]


def follow(walk: Walk, command: Command) -> None:
    """Has a reader type a command; who asks a slow machine who is there asks again."""
    asks = re.search(r"\bwool (workers|doctor)\b", command.text) is not None
    for _ in range(2 if asks else 0):
        with suppress(AssertionError):
            return walk.follow(command)
    walk.follow(command)


MEETING = """
def meet(worker):
    import os, time
    open(f"{folder}/{{worker}}", "w").close()
    end = time.monotonic() + 30
    while len(os.listdir("{folder}")) < {count} and time.monotonic() < end:
        time.sleep(0.01)


@wool.routine
"""


def meeting(program: File, count: int, folder: Path) -> File:
    """The program, but so many workers wait for each other, in a folder, before they compute.

    It takes less than a second: one worker may have done it all before another one is there.
    """
    folder.mkdir()
    text = program.text.replace("\n@wool.routine\n", MEETING.format(folder=folder, count=count))
    begin = "    found = sum("
    text = text.replace(begin, f"    meet(wool.current_call().worker.id)\n{begin}")
    assert text.count("meet(") == 2
    return File(program.name, text)


def missing(what: str) -> None:
    """Skips a test without a tool; where all tools have to be there, it fails."""
    (pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip)(what)


def need(*tools: tuple[str, str]) -> None:
    """Skips a test without these commands, each given with its Debian package."""
    for tool, package in tools:
        if shutil.which(tool, path=f"{os.environ['PATH']}:{SBIN}") is None:
            missing(f"{tool} is missing: install it, with `apt-get install {package}` on Debian")
