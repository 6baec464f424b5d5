"""The pages tell the truth: python blocks run and print what they say, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("wool-*/*.md"), *ROOT.glob("docs/**/*.md")]

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
AT_ONCE = 4
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_LOGGER_LEVEL": "warning"}
"""Ray keeps a token in the home folder, and says on standard error that it has started."""


class Block(NamedTuple):
    name: str
    line: int
    code: str
    output: str | None


def blocks() -> list[Block]:
    """Finds the python blocks of all pages, each with the `output` block that follows it."""
    found: list[Block] = []
    for page in sorted(PAGES):
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            language, body = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            if language == "python":
                found.append(Block(f"{page.relative_to(ROOT)}:{line}", line, body, None))
            elif language == "output":
                found[-1] = found[-1]._replace(output=body)
    return found


Done = subprocess.CompletedProcess[str]


def run(block: Block, folder: Path) -> Done:
    folder.mkdir()
    script = folder / "block.py"
    script.write_text("\n" * block.line + block.code, encoding="utf-8")  # lines as in the page
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as home:
        return subprocess.run(
            [sys.executable, script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=folder,
            env={**os.environ, **RAY, "HOME": home, "RAY_TMPDIR": home},
        )


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Done]]]:
    """Runs the blocks that were selected, some at once: most of their time is waiting."""
    folder = tmp_path_factory.mktemp("blocks")
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    selected = [p.params["block"] for p in parameters if p is not None and "block" in p.params]
    with ThreadPoolExecutor(AT_ONCE) as executor:
        yield {
            block.name: executor.submit(run, block, folder / str(number))
            for number, block in enumerate(selected)
        }
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in blocks()])
def test_block(block: Block, running: dict[str, Future[Done]]):
    done = running[block.name].result()
    assert done.returncode == 0, f"{block.name}\n{done.stderr}"
    assert done.stderr == ""
    if block.output is not None:
        assert done.stdout == block.output


def test_readme_has_blocks():
    assert sum(block.name.startswith("README.md:") for block in blocks()) >= 2


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links(page: Path):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_named_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = re.findall(r"(?:^|`)make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert named
        assert set(named) <= targets


def test_architecture_names_every_folder():
    package = ROOT / "wool-core" / "src" / "wool"
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders <= {name for name in folders if f"`{name}`" in page}
