"""From what a worker has answered to a value or an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

from wool._code.units import MissingCode, rebuild
from wool._peer.outgoing import Cancelled, Failed, Outcome, OutgoingCall, Reply
from wool._protocol import frames as f
from wool._values.codec import Codec, rebuild_error
from wool._values.exceptions import load_exception
from wool.abc import Buffer
from wool.exceptions import SerializationError, WorkerStopped


async def decode_reply(codec: Codec, call: OutgoingCall, reply: Reply) -> Any:
    """Rebuilds a result.

    Raises:
        SerializationError: it cannot be rebuilt here.
    """
    while True:
        try:
            return codec.decode(reply.segments, None, reply.referents)
        except MissingCode as missing:
            await call.fetch([missing.key])
        except Exception as error:
            name = call.request.name.removesuffix("()")  # of an object it may be a description
            raise rebuild_error(f"a result of {name}()", error, "this side") from error


def load_variable(codec: Codec, call: OutgoingCall, segments: Sequence[Buffer]) -> Awaitable[Any]:
    """Rebuilds the value of a context variable."""
    return rebuild(codec.decode, segments, fetch=call.fetch)


async def reply_error(
    codec: Codec, call: OutgoingCall, outcome: Outcome | Cancelled, thrown: BaseException | None
) -> BaseException:
    """Returns the exception that an outcome amounts to."""
    if isinstance(outcome, Failed):
        return outcome.fresh_error()
    if isinstance(outcome, Cancelled):
        return outcome.error
    assert isinstance(outcome, Reply)
    assert isinstance(outcome.frame, f.Raise)
    own = call.cancellation
    if outcome.frame.echo and thrown is not None:
        if outcome.segments:  # changes that were made to it
            await _load_exception(codec, call, outcome, thrown)
        if own is not None and not outcome.frame.delivered and isinstance(thrown, GeneratorExit):
            return own  # a generator that is closed ends so, as others return
        return thrown
    error = await _load_exception(codec, call, outcome, thrown)
    if own is not None and not outcome.frame.delivered and isinstance(error, WorkerStopped):
        return own  # the worker was told to stop as well, and that had cancelled the call already
    if own is None or type(error) is not asyncio.CancelledError:  # a subclass is the routine's own
        return error
    # The caller's own, with what became of it there; the lines where it struck, above all.
    own.__dict__.update(error.__dict__)
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own.with_traceback(error.__traceback__)


async def _load_exception(
    codec: Codec, call: OutgoingCall, reply: Reply, thrown: BaseException | None
) -> BaseException:
    assert isinstance(reply.frame, f.Raise)
    loads = partial(codec.decode, thrown=thrown, referents=reply.referents)
    summary = reply.frame.summary
    try:
        return await rebuild(load_exception, summary, reply.segments, loads, fetch=call.fetch)
    except SerializationError:  # nobody has the code that it takes
        return summary.error()
