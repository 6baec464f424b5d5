"""The function of a routine that a caller names."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any

from wool._code.code import CodeStore
from wool._code.names import find_name
from wool._texts import kind_of, reason_of
from wool._values.codec import rebuild_error
from wool.exceptions import SerializationError


async def find(
    store: CodeStore,
    target: str,
    rebuild: Callable[..., Awaitable[Any]],
    where: str,
    *,
    stream: bool,
) -> FunctionType:
    """Finds the function of a routine; see `frames.Open.routine`.

    Args:
        store: has the code that the caller has sent.
        rebuild: calls what makes something of that, and fetches what code is missing.
        where: names this worker in messages.
        stream: whether the caller knows it as an async generator function.

    Raises:
        SerializationError: it cannot be found here.
    """
    if target.startswith("#"):
        key = bytes.fromhex(target[1:])
        try:
            return await rebuild(store.load, key)
        except Exception as error:
            raise rebuild_error("the routine", error, where) from error
    if target.startswith("="):
        try:
            found = await rebuild(store.target, target[1:])
        except Exception as error:
            raise rebuild_error(f"the routine {target[1:]}", error, where) from error
        return beneath(found)
    try:
        return import_target(target, stream=stream)
    except Exception as error:
        raise SerializationError(
            f"the routine {target} cannot be imported on {where}: "
            f"{reason_of(error)}. Check that its module is installed there in the "
            "same version, or have it sent along: WorkerPool(ship=[…])"
        ) from error


def import_target(target: str, *, stream: bool) -> FunctionType:
    """Finds the function of `module:qualified.name`, beneath decorators of ours.

    Raises:
        TypeError: it is something else there.
        Exception: whatever importing the module raises.
    """
    function = beneath(find_name(target))
    is_kind = inspect.isasyncgenfunction if stream else inspect.iscoroutinefunction
    if not is_kind(function):
        kind = "async generator" if stream else "async"
        raise TypeError(f"there it is no {kind} function ({kind_of(function)})")
    return function


def beneath(found: Any) -> FunctionType:
    """Returns the function that a name stands for, without decorators of ours."""
    found = getattr(found, "__func__", found)
    routine = getattr(found, "__wool__", None)
    return found if routine is None else routine.function
