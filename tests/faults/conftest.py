"""Chooses the transports that faults are tried on."""

from __future__ import annotations

import zlib

import pytest

from support.fixtures import ends_are_known, folder, no_child_left
from support.pools import CARRIERS

__all__ = ["ends_are_known", "folder", "no_child_left"]


@pytest.fixture(autouse=True)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of pools that name none, here and in the scripts that a test starts."""
    monkeypatch.setenv("WOOL_TRANSPORT", request.param)
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tries every fault on one of the transports, which depends on the test's name.

    What is marked `everywhere` is tried on all of them. All faults on one of them:
    `FAULT_TRANSPORTS=grpc`, for instance.
    """
    chosen = CARRIERS
    if not any(metafunc.definition.iter_markers("everywhere")):
        number = zlib.crc32(metafunc.function.__name__.encode()) % len(CARRIERS)
        chosen = [CARRIERS[number]]
    metafunc.parametrize("carrier", chosen, indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; still run by default")
    config.addinivalue_line("markers", "everywhere: is tried on every transport between processes")
