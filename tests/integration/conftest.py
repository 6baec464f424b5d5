"""The fixtures that integration tests share."""

from __future__ import annotations

import pytest

from support.fixtures import folder, no_child_left
from support.serving import serving, start, token

__all__ = ["folder", "no_child_left", "serving", "start", "token"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")
