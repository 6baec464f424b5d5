"""NumPy, pandas and PyArrow: what arrives is a view of the very memory it was received into."""

import asyncio

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import wool

Numbers = NDArray[np.float64]


@wool.routine
async def scale(numbers: Numbers, factor: float) -> Numbers:
    assert not numbers.flags.owndata  # its memory is what came over the wire
    numbers *= factor  # and it can be changed in place
    return numbers


@wool.routine
async def mean(frame: pd.DataFrame) -> dict[str, float]:
    return {name: float(frame[name].mean()) for name in frame.columns}


@wool.routine
async def total(table: pa.Table) -> float:
    assert pa.total_allocated_bytes() == 0  # Arrow has no memory of its own here
    return pc.sum(table["price"]).as_py()


async def main() -> None:
    numbers = np.arange(1_000_000, dtype="float64")  # 8 MB
    async with wool.WorkerPool(size=1):
        scaled = await scale(numbers, 2.0)
        print(scaled[:3], "owns its memory:", scaled.flags.owndata)

        print(await mean(pd.DataFrame({"a": numbers, "b": -numbers})))

        print(await total(pa.table({"price": numbers})))


asyncio.run(main())
