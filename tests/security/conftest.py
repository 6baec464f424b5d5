"""Starts the workers that are attacked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from security.siegekit import Target
from support.fixtures import folder, no_child_left

__all__ = ["folder", "no_child_left"]


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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")
