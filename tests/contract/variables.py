"""Context variables, bound in all the ways there are, and routines that use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar, Token
from typing import Any

import wool
from support.parity import Journal

plain: ContextVar[Any] = ContextVar("plain")
defaulted: ContextVar[Any] = ContextVar("a name of its own", default="default")
other: ContextVar[Any] = ContextVar("other")
unsuitable: ContextVar[Any] = ContextVar("unsuitable")
excluded: ContextVar[Any] = ContextVar("excluded", default="default")


class Holder:
    attribute: ContextVar[Any] = ContextVar("attribute")

    class Inner:
        deep: ContextVar[Any] = ContextVar("deep")


VARIABLES = {
    "plain": plain,
    "defaulted": defaulted,
    "other": other,
    "attribute": Holder.attribute,
    "deep": Holder.Inner.deep,
    "unsuitable": unsuitable,
    "excluded": excluded,
}
UNSET = "unset"


def snapshot(*names: str) -> dict[str, Any]:
    """What the variables are set to."""
    return {name: value_of(name) for name in names or ("plain", "defaulted", "attribute")}


def value_of(name: str) -> Any:
    try:
        return VARIABLES[name].get()
    except LookupError:
        return UNSET


@wool.routine
async def get(*names: str) -> dict[str, Any]:
    return snapshot(*names)


@wool.routine
async def put(**values: Any) -> None:
    for name, value in values.items():
        VARIABLES[name].set(value)


@wool.routine
async def put_and_raise(error: BaseException, **values: Any) -> None:
    for name, value in values.items():
        VARIABLES[name].set(value)
    raise error


@wool.routine
async def put_when_cancelled(journal: Journal, value: Any) -> None:
    try:
        plain.set("begun")
        journal.write("started")
        await asyncio.sleep(3600)
    finally:
        plain.set(value)


@wool.routine
async def put_when_told(journal: Journal, value: Any) -> None:
    journal.write("started")
    await journal.wait("told")
    plain.set(value)
    journal.write("done")


@wool.routine
async def append(item: Any) -> list[Any]:
    """Changes a value in place."""
    plain.get().append(item)
    return plain.get()


@wool.routine
async def nested(depth: int) -> Any:
    """Each level adds to what it found, and finds what the level below has added."""
    plain.set([*plain.get(), depth])
    if depth:
        await nested(depth - 1)
    defaulted.set(f"{defaulted.get()} {depth}")
    return plain.get()


@wool.routine
async def counting(n: int) -> AsyncIterator[Any]:
    """Sets at each step, and at the end."""
    for i in range(n):
        seen = snapshot("plain", "other")
        plain.set(i)
        yield seen
    plain.set("end")


@wool.routine
async def seeing(*names: str) -> AsyncIterator[Any]:
    while True:
        yield snapshot(*names)


@wool.routine
async def borrowing(value: Any) -> AsyncIterator[Any]:
    """Resets with a token across `yield`."""
    token: Token[Any] = plain.set(value)
    try:
        yield plain.get()
    finally:
        plain.reset(token)


Operation = tuple[str, str, Any]
"""What to do (`set`, `reset`, `nested` or `raise`), with which variable, and a value."""


async def programmed(program: list[list[Operation]]) -> AsyncIterator[Any]:
    """Does, before each `yield`, what the program says: plain, or as a routine."""
    tokens: list[tuple[ContextVar[Any], Token[Any]]] = []
    for step in program:
        for operation, name, value in step:
            if operation == "set":
                tokens.append((VARIABLES[name], VARIABLES[name].set(value)))
            elif operation == "reset" and tokens:
                variable, token = tokens.pop()
                variable.reset(token)
            elif operation == "raise":
                raise KeyError(value)
            elif operation == "nested" and wool.current_call() is None:
                VARIABLES[name].set(value)
            elif operation == "nested":
                await put(**{name: value})
        yield snapshot("plain", "defaulted", "other")


programmed_routine = wool.routine(programmed)
