"""The parity suite: every case runs the same in every place (`support.parity.PLACES`).

A test states the exact outcome CPython gives; its run in the place `local`, where no pool is open,
proves the statement, and its runs elsewhere prove that Wool keeps the contract.

    pytest tests/contract                                   # everywhere
    CONTRACT_PLACES=local,unix+dill pytest tests/contract   # in these places
    CONTRACT_PLACES=served-unix pytest tests/contract       # on workers that were there before
    CONTRACT_EXAMPLES=50 pytest tests/contract/test_generator_machine.py    # a soak
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import wool
from support.parity import PLACES, Journal, Place
from support.serving import workers


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where routines run: nowhere but here, or in a pool of two workers kept for the module."""
    if request.param == "local":
        yield Place("local")
        return
    how, _, transport = request.param.rpartition("-")
    transport, _, serializer = transport.partition("+")
    if how == "served":
        serializer = serializer or "cloudpickle"
        async with workers(transport, WOOL_SERIALIZER=serializer) as addresses:
            made = wool.WorkerPool(discovery=addresses, serializer=serializer)
            async with made as pool:
                yield Place(request.param, pool)
        return
    with pytest.MonkeyPatch.context() as patch:
        # Nothing here should need the grace; what waits for it to run out ends by time-out instead.
        patch.setenv("WOOL_CANCEL_GRACE", "3600")
        made = wool.WorkerPool(size=2, transport=transport, serializer=serializer or None)
    async with made as pool:
        yield Place(request.param, pool)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing goes unhandled: asyncio logs such things as a task's exception never retrieved."""
    yield
    complaints = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert not complaints, complaints
