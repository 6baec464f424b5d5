"""pytest-asyncio: the same tests of a routine, without a pool and with one."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

import wool


class OutOfStock(Exception):
    """There is less than was ordered."""


@wool.routine
async def order(item: str, count: int, *, stock: dict[str, int]) -> int:
    assert count > 0
    if stock[item] < count:
        raise OutOfStock(item)
    return stock[item] - count


@pytest_asyncio.fixture(params=["local", "memory", "unix"])
async def place(request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    """Nowhere else, on threads of this process, in another process."""
    if request.param == "local":
        yield "local"
        return
    async with wool.WorkerPool(size=1, transport=request.param):
        yield request.param


@pytest.mark.asyncio
async def test_what_is_left(place: str) -> None:
    assert await order("wool", 2, stock={"wool": 5}) == 3


@pytest.mark.asyncio
async def test_too_few(place: str) -> None:
    with pytest.raises(OutOfStock, match="wool"):
        await order("wool", 9, stock={"wool": 5})


@pytest.mark.asyncio
async def test_a_failed_assertion_is_shown(place: str) -> None:
    with pytest.raises(AssertionError):
        await order("wool", 0, stock={"wool": 5})
