"""Random sequences of steps, made with a plain async generator and with one that a routine lends.

As test_generator_machine.py, which says more; here the generator is no routine, and elsewhere.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given

import wool
from contract.test_generator_machine import (
    OPERATIONS,
    PROGRAMS,
    SHAPES,
    Body,
    Operation,
    compiled,
    drive,
    examples,
)
from support.parity import Journal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]

_numbers = itertools.count()


@wool.routine
async def lend(make: Body, journal: Journal) -> object:
    return make(journal)


async def compare(make: Body, operations: list[Operation], journal: Journal) -> None:
    number = next(_numbers)
    here, there = (Journal(f"{journal.path}-{number}-{place}") for place in ("here", "there"))
    lent = await lend(make, there)
    expected = await drive(make, operations, here)
    assert await drive(lambda _: lent, operations, there) == expected


@pytest.mark.parametrize("shape", SHAPES)
@examples(10)
@given(operations=OPERATIONS)
async def test_shapes(shape: str, journal: Journal, operations: list[Operation]) -> None:
    await compare(SHAPES[shape], operations, journal)


@examples(60)
@given(source=PROGRAMS, operations=OPERATIONS)
async def test_programs(source: str, journal: Journal, operations: list[Operation]) -> None:
    await compare(compiled(source), operations, journal)
