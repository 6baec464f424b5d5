"""Starts the workers that are attacked, and collects what was seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from security.siegekit import Table, Target
from support.fixtures import folder, no_child_left

__all__ = ["folder", "no_child_left"]

TABLE = pytest.StashKey[Table]()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are given by each test itself."""
    for name in ("WOOL_TOKEN", "WOOL_TOKEN_FILE", "WOOL_TRANSPORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A worker that all attacks on a channel are directed at, and that survives them all."""
    worker = Target(request.param, tmp_path_factory.mktemp("target"))
    try:
        yield worker
    finally:
        worker.close()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """Collects what is seen; `SECURITY_TABLE=file` or `-rP` shows it."""
    return request.config.stash[TABLE]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    lines = config.stash[TABLE].lines()
    path = os.environ.get("SECURITY_TABLE")
    if path:
        Path(path).write_text("\n".join(lines) + "\n")
    if "P" in config.option.reportchars:
        terminalreporter.section("what attackers and users saw")
        for line in lines:
            terminalreporter.write_line(line)
