from __future__ import annotations

from pathlib import Path

import pytest

from publishing.kit import build


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdists and wheels of all packages."""
    return build(tmp_path_factory.mktemp("dist"))
