"""Random programs that set, reset and look at context variables, plain and as a routine.

The caller does things in its context, or in one of two, and steps a generator in between; what
both see at every point must be the same.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import variables as v
from support.parity import SOAK

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]

NAMES = ("plain", "defaulted", "other")
VALUES = st.one_of(
    st.none(),
    st.integers(0, 2),
    st.sampled_from(["a", "b"]),
    st.lists(st.integers(0, 1), max_size=2),
    st.tuples(st.sampled_from("ab"), st.booleans()),
)


def operations(*kinds: str) -> st.SearchStrategy[list[v.Operation]]:
    operation = st.tuples(st.sampled_from(kinds), st.sampled_from(NAMES), VALUES)
    return st.lists(operation, max_size=3)


def examples(n: int) -> Any:
    return settings(
        max_examples=n * SOAK or n,
        deadline=None,
        derandomize=not SOAK,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


async def trace(
    make: Callable[..., Any],
    program: list[list[v.Operation]],
    turns: Sequence[tuple[int, list[v.Operation]]],
    start: Any,
) -> list[Any]:
    """Returns what is seen when the caller does its turns, each in a context, before a step."""
    base = contextvars.Context()
    for name in NAMES if start is not None else ():
        base.run(v.VARIABLES[name].set, start)
    contexts = [base, base.copy()]
    tokens: list[Any] = []
    stream = base.run(make, program)

    async def turn(doing: list[v.Operation]) -> Any:
        for operation, name, value in doing:
            variable = v.VARIABLES[name]
            if operation == "set":
                tokens.append((variable, variable.set(value)))
            elif operation == "reset" and tokens:
                variable, token = tokens.pop()
                variable.reset(token)
        try:
            stepped = await anext(stream, "the end")
        except KeyError as error:
            stepped = repr(error)
        return stepped, v.snapshot(*NAMES)

    loop = asyncio.get_running_loop()
    seen = [await loop.create_task(turn(do), context=contexts[which]) for which, do in turns]
    await loop.create_task(stream.aclose(), context=base)
    return seen


@examples(150)
@given(
    program=st.lists(operations(*["set", "reset"] * 3, "nested", "raise"), min_size=2, max_size=5),
    turns=st.lists(operations("set", "reset"), min_size=3, max_size=6),
    start=st.sampled_from([None, None, "start", [0]]),
)
async def test_in_one_context(program: Any, turns: Any, start: Any) -> None:
    in_base = [(0, do) for do in turns]
    expected = await trace(v.programmed, program, in_base, start)
    assert await trace(v.programmed_routine, program, in_base, start) == expected


@examples(150)
@given(
    program=st.lists(operations(*["set"] * 3, "nested", "raise"), min_size=2, max_size=5),
    turns=st.lists(st.tuples(st.integers(0, 1), operations("set")), min_size=3, max_size=6),
    start=st.sampled_from(["start", [0]]),
)
async def test_in_two_contexts(program: Any, turns: Any, start: Any) -> None:
    """Tokens are left out, for locally they would be of no use in the other context."""
    expected = await trace(v.programmed, program, turns, start)
    assert await trace(v.programmed_routine, program, turns, start) == expected
