"""Where the recipes are, and what it takes to follow them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from publishing.walk import Command, steps

DOCS = Path(__file__).parents[2] / "docs"
CLUSTERS = DOCS / "clusters"
EXAMPLES = DOCS / "examples"
SBIN = "/usr/sbin:/sbin"


def commands_of(page: str) -> list[Command]:
    """What a page has its reader type."""
    return [step for step in steps(CLUSTERS / page) if isinstance(step, Command)]


def missing(what: str) -> None:
    """Skips a test without a tool; where all tools have to be there, it fails."""
    (pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip)(what)


def need(*tools: tuple[str, str]) -> None:
    """Skips a test without these commands, each given with its Debian package."""
    for tool, package in tools:
        if shutil.which(tool, path=f"{os.environ['PATH']}:{SBIN}") is None:
            missing(f"{tool} is missing: install it, with `apt-get install {package}` on Debian")
