"""Where a task or a thread stands: the lines of the user's code, looked up from outside."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import AsyncGeneratorType, FrameType
from typing import Any

from wool._protocol.status import Line

DEEPEST = 50
"""Lines that are told of one stack: its innermost."""

_LIBRARY = os.path.dirname(os.__file__)


def awaited_frames(awaited: Any) -> Iterator[FrameType]:
    """Yields the frames of a coroutine or generator and of all that it awaits, outermost first."""
    while awaited is not None:
        for kind, inner in (("cr", "cr_await"), ("ag", "ag_await"), ("gi", "gi_yieldfrom")):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaited = getattr(awaited, inner)
                break
        else:
            # A step of an async generator does not say of which one it is.
            inside: list[object] = gc.get_referents(awaited)
            awaited = next(filter(_is_async_generator, inside), None)


def lines_awaited(awaited: Any) -> tuple[Line, ...]:
    """Returns where a coroutine waits, outermost line first."""
    return _lines(list(awaited_frames(awaited)))


def lines_running(frame: FrameType | None) -> tuple[Line, ...]:
    """Returns where a thread stands, given its innermost frame; outermost line first."""
    return _lines(frames_running(frame))


def frames_running(frame: FrameType | None) -> list[FrameType]:
    """Returns the frames of a thread, given its innermost one; outermost first.

    The callers of Wool are left out: in a worker, that is how its process was started.
    """
    frames: list[FrameType] = []
    while frame is not None and not (frames and _is_wools(frame)):
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _lines(frames: list[FrameType]) -> tuple[Line, ...]:
    users = [frame for frame in frames if is_users(frame)][-DEEPEST:]
    return tuple(Line(f.f_code.co_filename, f.f_lineno or 0, f.f_code.co_qualname) for f in users)


def is_users(frame: FrameType) -> bool:
    """Whether a frame is neither of Wool's nor of the standard library's.

    That of a routine's wrapper stands for the call, whose line is that of whoever awaits it.
    """
    file, scope = frame.f_code.co_filename, frame.f_globals
    if file.startswith("<frozen ") or (file.startswith(_LIBRARY) and "site-packages" not in file):
        return False
    return "__routine__" not in scope and not _is_wools(frame)


def _is_wools(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "wool"


def _is_async_generator(obj: object) -> bool:
    return type(obj) is AsyncGeneratorType
