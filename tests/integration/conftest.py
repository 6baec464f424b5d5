"""Borrows helpers and fixtures of the fault tests, also for workers, in every import mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[1] / "faults")
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)

from faultfixtures import folder, no_child_left  # noqa: E402

from integration.discoverykit import serving, token  # noqa: E402
from integration.servedkit import start  # noqa: E402

__all__ = ["folder", "no_child_left", "serving", "start", "token"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")
