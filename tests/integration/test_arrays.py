"""Arrays arrive as views of the memory they were received into, and leave as they are."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import pytest_asyncio

import wool
from integration.arrayjobs import MIB, change, look, make, memory, owner, prepare, reset_peak
from wool._backends import cloudpickle, dill
from wool._code.code import CodeBook, CodeStore
from wool._code.modules import Modules
from wool._values.codec import Codec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory it has")

SIZE = 64 * MIB
SPARE = 24
"""MiB that may go elsewhere: buffers of sockets and libraries, imports."""

SHARED = SIZE // MIB
"""MiB that a sender has in a segment of shared memory, besides the value itself."""

NUMBERS = np.arange(SIZE // 8, dtype="float64")

VALUES = {
    "numpy": NUMBERS,
    "numpy, two dimensions": NUMBERS.reshape(-1, 64).T,
    "pandas": pd.DataFrame(NUMBERS.reshape(-1, 4), columns=list("abcd"), copy=False),
    "pyarrow": pa.table({"a": NUMBERS[: len(NUMBERS) // 2], "b": NUMBERS[len(NUMBERS) // 2 :]}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["unix", "grpc", "ws"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[wool.WorkerPool]:
    async with wool.WorkerPool(size=1, transport=request.param) as pool:
        yield pool


@pytest.mark.usefixtures("pool")
@pytest.mark.asyncio(loop_scope="module")
class TestOnTheWay:
    @pytest.mark.parametrize("kind", VALUES)
    async def test_arguments(self, kind: str) -> None:
        there, here = await prepare(), reset_peak()
        owners, most = await look(VALUES[kind])
        assert set(owners) == {"received" if kind == "pyarrow" else "memoryview"}
        assert most - there < SIZE // MIB + SPARE  # what came over the wire, and nothing else
        assert memory() - here < SHARED + SPARE

    async def test_results(self) -> None:
        there, here = await prepare(), reset_peak()
        made = await make(SIZE)
        assert owner(made) == "memoryview" and made.flags.writeable
        assert memory() - here < SIZE // MIB + SPARE
        _, most = await look(None)
        assert most - there < SIZE // MIB + SHARED + SPARE

    async def test_what_arrives_can_be_changed(self) -> None:
        array = np.zeros(MIB)
        changed = await change(array)
        changed += 1
        assert (array[0], changed[0]) == (0, 2)


@pytest.mark.parametrize("serializer", [cloudpickle, dill])
@pytest.mark.parametrize("kind", VALUES)
def test_what_is_sent_is_the_memory_itself(kind: str, serializer: Any) -> None:
    book = CodeBook(Modules())
    codec = Codec(serializer.make(serializer.Options()), book, CodeStore(book))
    value = VALUES[kind]
    encoded = codec.encode(value)
    held = sum(map(len, encoded.segments[1:]))
    assert held == SIZE
    assert len(encoded.segments[0]) < 16 << 10
    if kind.startswith("numpy"):
        assert np.shares_memory(np.frombuffer(encoded.segments[1], "float64"), NUMBERS)
    elif kind == "pandas":
        assert np.shares_memory(np.frombuffer(encoded.segments[1]), value["a"].to_numpy())
    else:
        buffer = value["a"].chunk(0).buffers()[1]
        assert np.shares_memory(np.frombuffer(encoded.segments[1]), np.frombuffer(buffer))
