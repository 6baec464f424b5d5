"""How a call, or the use of a live object, ends for the one who asked for it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from wool._exchange.cancels import Cancels
from wool._exchange.packing import Packed, pack
from wool._protocol import frames as f
from wool._serialization.codec import Codec, result_error
from wool._serialization.exceptions import dump_exception
from wool._serialization.thrown import Thrown
from wool._session.session import Session
from wool.exceptions import SerializationError


class Failure(msgspec.Struct, frozen=True):
    """An exception as it is sent.

    Attributes:
        packed: the exception, as much of it as can be encoded.
        summary: describes it, in case that it cannot be rebuilt.
        echo: whether it was thrown in by the receiver, who has it.
    """

    packed: Packed
    summary: list[str]
    echo: bool


def encode_result(
    codec: Codec, session: Session, value: Any, name: str, thrown: Thrown | None = None
) -> Packed | SerializationError:
    """Encodes what a function has returned or yielded.

    Args:
        name: of the function, for messages.
        thrown: what the receiver has thrown in.

    Returns:
        The value, or why it cannot be sent.
    """
    try:
        return pack(codec, session, codec.encode(value, None, thrown))
    except BaseException as error:  # pickling runs the user's code
        failure = result_error(name, value, error)
        failure.__cause__ = error
        return failure


def encode_failure(
    codec: Codec, session: Session, error: BaseException, thrown: Thrown | None, label: str
) -> Failure:
    """Encodes an exception; never raises.

    Args:
        thrown: what the receiver has thrown in.
        label: says where it was raised.
    """
    echo = False
    if thrown is not None and error is thrown.exception:
        echo = True
        if isinstance(error, GeneratorExit) and not thrown.changes():  # as closing ends
            return Failure(Packed(), [], echo)

    def dumps(value: Any) -> Packed:
        return pack(codec, session, codec.encode(value, label, thrown))

    summary, packed = dump_exception(error, dumps, label)
    said = [summary.type_name, summary.message, summary.traceback]
    return Failure(packed or Packed(), said, echo)


def make_return(
    call: int,
    packed: Packed,
    references: list[bytes],
    cancels: Cancels,
    task: asyncio.Task[Any] | None,
    *,
    load: int = 0,
    idle_as_of: int = 0,
) -> f.Return:
    """Makes the frame for a result.

    Args:
        references: keys of the live objects in it.
        cancels: those of `task`, which has made it.
        load, idle_as_of: of the worker, if one answers.
    """
    return f.Return(
        call=call,
        delivered=cancels.delivered,
        uncancelled=cancels.uncancelled(task),
        load=load,
        idle_as_of=idle_as_of,
        sizes=packed.sizes,
        codes=packed.codes,
        references=references,
        context=packed.context,
    )


def make_raise(
    call: int,
    failure: Failure,
    packed: Packed,
    references: list[bytes],
    cancels: Cancels,
    task: asyncio.Task[Any] | None,
    *,
    load: int = 0,
    idle_as_of: int = 0,
    step: int = 0,
) -> f.Raise:
    """Makes the frame for an exception; see `make_return`.

    Args:
        packed: has what else is to be sent, besides the exception.
        step: of a stream, the last that it had taken.
    """
    return f.Raise(
        call=call,
        delivered=cancels.delivered,
        uncancelled=cancels.uncancelled(task),
        load=load,
        idle_as_of=idle_as_of,
        echo=failure.echo,
        summary=failure.summary,
        sizes=packed.sizes,
        codes=packed.codes,
        references=references,
        context=packed.context,
        step=step,
    )
