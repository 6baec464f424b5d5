"""Makes the helpers beside the tests importable here and on the workers, in every import mode."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)

from faultfixtures import ends_are_known, folder, no_child_left  # noqa: E402
from faultkit import CARRIERS  # noqa: E402

__all__ = ["ends_are_known", "folder", "no_child_left"]


@pytest.fixture(autouse=True)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of pools that name none, here and in the scripts that a test starts."""
    monkeypatch.setenv("WOOL_TRANSPORT", request.param)
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tries every fault on the first transport and, unless it is slow, on one of the others.

    Which one depends on the test's name. All faults on one: `FAULT_TRANSPORTS=grpc`, for instance.
    What is marked `everywhere` is tried on all of them anyway.
    """
    if any(metafunc.definition.iter_markers("everywhere")):
        metafunc.parametrize("carrier", CARRIERS, indirect=True)
        return
    once = "transport" in metafunc.fixturenames or any(metafunc.definition.iter_markers("slow"))
    chosen, others = CARRIERS[:1], CARRIERS[1:]
    if others and not once:
        chosen = [*chosen, others[zlib.crc32(metafunc.function.__name__.encode()) % len(others)]]
    metafunc.parametrize("carrier", chosen, indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")
    config.addinivalue_line("markers", "everywhere: is tried on every transport between processes")
