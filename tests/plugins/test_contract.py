"""The contract holds on a third party's transport: a good part of the suite, in that place.

All of it passes: `CONTRACT_PLACES=zmq pytest tests/contract`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = [
    "call",
    "cancellation",
    "generators",
    "generator_closing",
    "nesting",
    "pipelines",
    "values",
]


@pytest.mark.timeout(200)
def test_the_contract_over_zeromq() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + [f"tests/contract/test_{part}.py" for part in PARTS],
        cwd=ROOT,
        env={**os.environ, "CONTRACT_PLACES": "zmq"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "[zmq" not in done.stdout  # as failures and skips would have
