"""From what a caller has sent to routines and values, asking it for code that is missing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from wool._protocol.frames import Buffer
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.codec import interrupted, rebuild_error
from wool._serialization.exceptions import load_exception
from wool._serialization.fetching import rebuild
from wool._serialization.modules import find_name
from wool._serialization.summaries import Summary, kind_of, reason_of
from wool._serialization.thrown import Thrown
from wool._serialization.units import MissingCode
from wool.exceptions import SerializationError

if TYPE_CHECKING:
    from wool._worker.caller import Caller


async def find(caller: Caller, target: str, *, stream: bool) -> FunctionType:
    """Finds the function of a routine; see `frames.Open.routine`.

    Args:
        stream: whether the caller knows it as an async generator function.

    Raises:
        SerializationError: it cannot be found here.
    """
    store = caller.codec.store
    if target.startswith("#"):
        key = bytes.fromhex(target[1:])
        try:
            return await _rebuild(caller, store.load, key)
        except Exception as error:
            raise rebuild_error("the routine", error, caller.where) from error
    if target.startswith("="):
        try:
            found = await _rebuild(caller, store.target, target[1:])
        except Exception as error:
            raise rebuild_error(f"the routine {target[1:]}", error, caller.where) from error
        return beneath(found)
    try:
        return import_target(target, stream=stream)
    except Exception as error:
        raise SerializationError(
            f"the routine {target} cannot be imported on {caller.where}: "
            f"{reason_of(error)}. Check that its module is installed there in the "
            "same version, or have it sent along: WorkerPool(ship=[…])"
        ) from error


def load(
    caller: Caller, segments: Sequence[Buffer], referents: Referents = NO_REFERENTS
) -> Awaitable[Any]:
    """Rebuilds a value.

    Raises:
        Exception: whatever rebuilding it raises.
    """
    return _rebuild(caller, caller.codec.decode, segments, None, referents)


async def load_thrown(caller: Caller, segments: Sequence[Buffer], referents: Referents) -> Thrown:
    """Rebuilds an exception that is to be thrown in, or as much of it as can be."""
    summary = Summary("wool.RemoteError", "an exception that could not be rebuilt here", "")
    codec = caller.codec

    def decode(segments: Sequence[Buffer]) -> Any:
        return codec.decode(segments, None, referents)

    payload, missing = segments or None, (MissingCode,)
    return Thrown(await _rebuild(caller, load_exception, summary, payload, decode, missing))


async def _rebuild(caller: Caller, make: Callable[..., Any], *args: Any) -> Any:
    """Rebuilds something, fetching from the caller what code is missing."""
    try:
        return await rebuild(make, *args, fetch=caller.fetch)
    except KeyboardInterrupt as error:  # of the user's own making: SIGINT is ignored here
        raise interrupted(error) from error


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
