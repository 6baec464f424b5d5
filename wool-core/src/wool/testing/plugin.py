"""Fixtures for pytest, in tests of code that uses Wool; and the advice of the conformance kits.

pytest imports this module whenever it starts, so Wool itself is imported when a fixture is used.
The fixtures are plain functions: they do as well for tests of pytest-asyncio, of anyio's plug-in,
and for those that call `asyncio.run` themselves.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wool import WorkerPool
    from wool.testing import Faults

EACH = "wool_pool_on_each_transport"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests on each transport that is installed."""
    if EACH in metafunc.fixturenames:
        from wool.testing._pools import transports

        metafunc.parametrize(EACH, transports(), indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Says of a check of a conformance kit that fails what is promised, and what to do."""
    check = getattr(item, "function", None)
    advice = getattr(check, "remedy", None)
    if call.excinfo is None or advice is None or call.excinfo.errisinstance(pytest.skip.Exception):
        return
    told = {"Promise": getattr(check, "__doc__", None) or "", "What to do": advice}
    for label, text in told.items():
        paragraph = f"{label}: {' '.join(text.split())}"
        call.excinfo.value.add_note(textwrap.fill(paragraph, 96, subsequent_indent="    "))


@pytest.fixture
def wool_pool_options() -> dict[str, Any]:
    """Arguments of `wool.WorkerPool` for the fixtures below; override it to change them."""
    return {"size": 2, "quorum": 2}


@pytest.fixture
def wool_faults() -> Iterator[Faults]:
    """A `wool.testing.Faults` for the pools of the test."""
    from wool.testing import Faults

    with Faults() as faults:
        yield faults


@pytest.fixture
def wool_pool(
    request: pytest.FixtureRequest, wool_pool_options: dict[str, Any]
) -> Iterator[WorkerPool]:
    """A pool whose workers are threads of this process, for as long as the test runs.

    Routines find it by themselves, whichever event loop they are called on.
    """
    yield from _opened(request, {"transport": "memory", **wool_pool_options})


@pytest.fixture(name=EACH)
def wool_pool_on_each_transport(
    request: pytest.FixtureRequest, wool_pool_options: dict[str, Any]
) -> Iterator[WorkerPool]:
    """A pool like `wool_pool`, on each transport that is installed: the test runs several times."""
    yield from _opened(request, {**wool_pool_options, "transport": request.param})


def _opened(request: pytest.FixtureRequest, options: dict[str, Any]) -> Iterator[WorkerPool]:
    from wool.testing._pools import opened

    if "wool_faults" in request.fixturenames:
        request.getfixturevalue("wool_faults")  # pools that were opened before have no faults
    with opened(options) as pool:
        yield pool
