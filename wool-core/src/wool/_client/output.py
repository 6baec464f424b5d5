"""Output: what calls print and log on workers, shown as if it had been printed where they are made.

Showing takes the time of the caller's loop, and a routine may print faster than anybody can read.
So the worker is told late that it may send more: the loop has most of its time for other things.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import msgspec

from wool._peer.outgoing import OutgoingCall
from wool._peer.running import RUNNING
from wool._protocol import frames as f

REST = 9.0
"""Seconds that pass, for each one spent on showing, before the worker is told."""

LEAST = 0.02
"""Seconds that pass at least: sending without a pause would keep the worker from other calls."""

# Whether this code runs because output is shown: what the calls it makes print is not shown, as a
# handler of logs that makes a call which logs would go on for ever.
_SHOWING: ContextVar[bool] = ContextVar("wool_showing", default=False)


def show(call: OutgoingCall, frame: f.Output, send: Callable[[f.Heard], object]) -> None:
    """Shows output at once, so that it comes before what its caller does with an answer.

    Args:
        call: printed it, and has the context for it.
        send: tells the worker, later, that more may come.
    """
    if call.context is None:
        return
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    try:
        call.context.copy().run(_pass_on, frame.pieces)
    except Exception as error:  # of a stream or handler of the user's, who is told
        message = "the output of a call could not be shown"
        loop.call_exception_handler({"message": message, "exception": error})
    call.unheard += frame.weight
    if call.unheard >= f.OUTPUT_BOUND // 4:
        heard, call.unheard = f.Heard(frame.call, call.unheard), 0
        loop.call_later(max(LEAST, REST * (time.perf_counter() - began)), send, heard)


def _pass_on(pieces: Sequence[f.Piece]) -> None:
    """Shows output or, if its caller is a call itself, sends it on to the caller of that."""
    running = RUNNING.get()
    relay = None if running is None else running.output()
    if relay is not None:
        relay.relay(pieces)
    elif not _SHOWING.get():
        _SHOWING.set(True)
        _show(pieces)


def _show(pieces: Sequence[f.Piece]) -> None:
    for piece in pieces:
        if piece.stream == f.RECORD:
            _log(piece)
            continue
        stream = sys.stdout if piece.stream == f.STDOUT else sys.stderr
        if stream is not None:  # there is none in programs without a console
            mark = f"[{piece.routine}, {piece.worker}] "
            lines = piece.data.decode(errors="replace").removesuffix("\n")
            stream.write(mark + lines.replace("\n", f"\n{mark}") + "\n")


def _log(piece: f.Piece) -> None:
    """Has the caller's own loggers handle a record, if that is important enough for them."""
    marks = {"wool_routine": piece.routine, "wool_worker": piece.worker}
    record = logging.makeLogRecord({**msgspec.msgpack.decode(piece.data), **marks})
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
