"""The parity suite: every case runs the same in every place (`contract.support.PLACES`).

A test states the exact outcome CPython gives; its run in the place `local`, where no pool is open,
proves the statement, and its runs elsewhere prove that Wool keeps the contract.

    pytest tests/contract                                   # everywhere
    CONTRACT_PLACES=local,unix+dill pytest tests/contract   # in these places
    CONTRACT_EXAMPLES=50 pytest tests/contract/test_generator_machine.py    # a soak
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import wool
from contract.support import PATIENCE, PLACES, SOAK, Journal, Place


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where routines run: nowhere but here, or in a pool of two workers kept for the module."""
    if request.param == "local":
        yield Place("local")
        return
    transport, _, serializer = request.param.partition("+")
    async with wool.WorkerPool(size=2, transport=transport, serializer=serializer or None) as pool:
        yield Place(request.param, pool)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing goes unhandled, and nothing waits for a grace period to run out.

    asyncio logs what nobody handled, such as a task's exception never retrieved.
    """
    began = time.monotonic()
    yield
    complaints = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert not complaints, complaints
    assert SOAK or time.monotonic() - began < PATIENCE, "something has waited in vain"
