"""Output: what calls print and log in a worker's own process, on its way to their callers.

Streams stand in for `sys.stdout` and `sys.stderr`, and a handler listens at the root of all
loggers. They ask the context which call is running; outside of calls all is as it was before.

A call may have `OUTPUT_BOUND` bytes waiting or on the way, until its caller says that they have
been shown. All that exceeds it is dropped, and counted. So nobody waits for output, and it fills no
memory.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, TextIO, cast

import msgspec

from wool._peer.end import End
from wool._peer.running import RUNNING
from wool._protocol import frames as f

LONGEST = 8 << 10
"""Characters after which a line is sent although it has not ended."""

_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode
_source = attrgetter("routine", "worker", "stream")


class CallOutput:
    """The output of one call, until its caller has it. May be used on any thread.

    Args:
        way: the connection to its caller.
        routine: names it to the user.
        muted: whether all of it is dropped, without a word.
    """

    def __init__(self, way: End, call: int, routine: str, *, muted: bool) -> None:
        self._way = way
        self._call = call
        self._routine = routine
        self._muted = muted
        # User code may print at any moment, even while its garbage is collected in here.
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._begun = {f.STDOUT: "", f.STDERR: ""}  # lines that have not ended
        self._waiting: list[f.Piece] = []
        self._weight = 0  # of those
        self._unheard = 0  # the weight of what was sent
        self._dropped = 0
        self._woken = False

    def write(self, stream: int, text: str) -> None:
        """Takes printed text; lines leave when they have ended."""
        with self._lock:
            lines, end, rest = (self._begun[stream] + text).rpartition("\n")
            if len(rest) > LONGEST:
                lines, end, rest = lines + end + rest, "\n", ""
            self._begun[stream] = rest
            if end:
                self._add(self._piece(stream, lines + end))
        self._wake()

    def log(self, record: logging.LogRecord) -> None:
        """Takes a record: plain values keep their type, others leave their repr."""
        attributes: dict[str, Any] = {**record.__dict__, "args": None, "exc_info": None}
        attributes["msg"] = record.getMessage()
        if record.exc_info and not record.exc_text:
            attributes["exc_text"] = logging.Formatter().formatException(record.exc_info)
        data = _encode({key: _plain(value) for key, value in attributes.items()})
        self.relay([f.Piece(self._routine, self._way.where, f.RECORD, data)])

    def relay(self, pieces: Sequence[f.Piece]) -> None:
        """Takes output of this call, or of those that it has made."""
        with self._lock:
            for piece in pieces:
                self._add(piece)
        self._wake()

    def heard(self, amount: int) -> None:
        """The caller has shown so much."""
        with self._lock:
            self._unheard = max(0, self._unheard - amount)

    def flush(self, *, end: bool) -> None:
        """Sends what there is, before an answer.

        Args:
            end: whether the call ends with it: then so do its last lines.
        """
        if end:
            with self._lock:
                for stream, text in self._begun.items():
                    if text:
                        self._add(self._piece(stream, text + "\n"))
                self._begun = dict.fromkeys(self._begun, "")
                self._tell_dropped()
        self._send()

    def _piece(self, stream: int, text: str) -> f.Piece:
        data = text.encode(errors="backslashreplace")
        return f.Piece(self._routine, self._way.where, stream, data)

    def _add(self, piece: f.Piece) -> None:
        """Takes a piece, or what there is room for; counts the rest."""
        if self._muted:
            return
        kept = _fitting(piece, f.OUTPUT_BOUND - self._weight - self._unheard)
        if kept is not None:
            self._tell_dropped()
            self._waiting.append(kept)
            self._weight += kept.weight
        if kept is not piece:
            end = 0 if kept is None else len(kept.data)
            self._dropped += 1 if piece.stream == f.RECORD else piece.data.count(b"\n", end)

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"({dropped} lines were dropped here: more came than could be shown)\n"
            self._waiting.append(self._piece(f.STDERR, text))

    def _wake(self) -> None:
        """Has the I/O thread send what there is."""
        with self._lock:
            needed = bool(self._waiting) and not self._woken
            self._woken = self._woken or needed
        if needed:
            self._way.on_session(self._send_there)

    def _send_there(self) -> None:
        self._woken = False
        self._send()

    def _send(self) -> None:
        with self._sending:  # an answer must not overtake what another thread is sending
            with self._lock:
                frame = f.Output(self._call, list(_joined(self._waiting)))
                self._waiting, self._weight = [], 0
                self._unheard += frame.weight
            if frame.pieces:
                self._way.session.put(frame)
                self._way.on_session(self._way.session.wake)


def _fitting(piece: f.Piece, room: int) -> f.Piece | None:
    """Returns a piece, or as many of its lines as there is room for; None if that is none."""
    excess = piece.weight - room
    if excess <= 0:
        return piece
    end = max(0, len(piece.data) - excess)
    end = 0 if piece.stream == f.RECORD else piece.data.rfind(b"\n", 0, end) + 1
    return msgspec.structs.replace(piece, data=piece.data[:end]) if end else None


def _joined(pieces: Iterable[f.Piece]) -> Iterator[f.Piece]:
    """Puts lines together that have the same source."""
    for (routine, worker, stream), run in groupby(pieces, _source):
        if stream == f.RECORD:
            yield from run
        else:
            yield f.Piece(routine, worker, stream, b"".join(piece.data for piece in run))


def _plain(value: object) -> object:
    """Returns a value if it can be sent, else how it looks, if it can say so."""
    with contextlib.suppress(Exception):  # a number is too large, or text is not Unicode
        _encode(value)
        return value
    try:
        return ascii(value)
    except Exception:
        return object.__repr__(value)


def _output() -> CallOutput | None:
    """Returns what takes the output of the running call; None if the worker keeps it."""
    running = RUNNING.get()
    output = None if running is None else running.output()
    return output if isinstance(output, CallOutput) else None


class CallStream:
    """Stands in for a standard stream of the worker.

    Args:
        stream: which one it is.
        real: the one that it stands in for, and that does all that is not about a call.
    """

    def __init__(self, stream: int, real: TextIO) -> None:
        self._stream = stream
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, text: str) -> int:
        """Writes text, to the caller of the running call if there is one."""
        output = _output()
        if output is None:
            return self._real.write(text)
        output.write(self._stream, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Whether it is a terminal: what is sent elsewhere is not."""
        return _output() is None and self._real.isatty()


class CallHandler(logging.Handler):
    """Takes the records of running calls; of others, those that Python prints if nobody listens."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Takes one record.

        It holds no lock meanwhile: garbage may be collected, and log something, at any moment.
        """
        output, last = _output(), logging.lastResort
        if output is not None:
            try:
                output.log(record)
            except Exception:  # its arguments do not fit its text
                self.handleError(record)
        elif last is not None and record.levelno >= last.level and self._is_alone(record.name):
            last.handle(record)
        return True

    def _is_alone(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


class Capture:
    """The means to know what calls print, in a process that is the worker's own."""

    def __init__(self) -> None:
        self._installed = False

    def install(self, level: int) -> None:
        """Listens from now on.

        Args:
            level: of the least important records that a caller wants to have.
        """
        if not self._installed:
            self._installed = True
            logging.root.addHandler(CallHandler())
            for name, stream in (("stdout", f.STDOUT), ("stderr", f.STDERR)):
                real = getattr(sys, name)
                if real is not None:  # it was closed when the worker began
                    setattr(sys, name, cast("TextIO", CallStream(stream, real)))
        if level < logging.root.level:
            logging.root.setLevel(level)
