"""Where a call stands: looked up for its caller, whether or not the main thread answers."""

from __future__ import annotations

import asyncio
import os
import sys
from types import FrameType
from typing import Any

from wool._client.pool import Pool
from wool._protocol import frames as f
from wool._worker.execution import Execution
from wool._worker.executor import Executor

BLOCKED_AFTER = 0.1
"""Seconds after which a loop that has not come round is said to be blocked."""

_LIBRARY = os.path.dirname(os.__file__)

MAX_TEXT = 2000
"""Characters of what is reported."""


class Inquiry:
    """Finds out where a call stands, and reports it.

    The main thread tells best: which call the call waits for, whose worker is asked in turn, or at
    which line it waits. If it does not come round to that, its own line tells what keeps it.

    Args:
        pool: what calls made from this one go to.
    """

    def __init__(self, call: Execution, executor: Executor, pool: Pool) -> None:
        self._call = call
        self._executor = executor
        self._pool = pool
        self._answered = False

    def begin(self) -> None:
        """Begins to look; on the I/O thread."""
        self._executor.call(self._look)
        asyncio.get_running_loop().call_later(BLOCKED_AFTER, self._look_from_outside)

    def _look_from_outside(self) -> None:
        frame = sys._current_frames().get(self._executor.thread)
        if not self._answered and frame is not None:
            self._report(f"{self._call.peer.where} is blocked{_line(frame)}")

    def _look(self) -> None:
        """Looks on the executor's thread."""
        if self._answered:
            return
        self._answered = True
        call = self._call
        inner = self._pool.client().calls_of(call.info.id)
        if inner:
            name = inner[0].request.name
            inner[0].inquire(lambda where: self._report(f"it waits for {name}(): {where}"))
        elif call.task is None:
            self._report(f"it has not begun on {call.peer.where}")
        else:
            frame = _innermost(call.task.get_coro())
            self._report(f"on {call.peer.where} it waits{_line(frame)}")

    def _report(self, text: str) -> None:
        self._answered = True
        frame = f.Report(self._call.frame.call, text[:MAX_TEXT])
        self._call.peer.on_session(self._call.peer.session.send, frame)


def _innermost(awaited: Any) -> FrameType | None:
    """Returns the frame of the user's that waits, of a coroutine and all that it awaits."""
    found: FrameType | None = None
    while awaited is not None:
        kinds = [kind for kind in ("cr", "ag", "gi") if hasattr(awaited, f"{kind}_frame")]
        if not kinds:
            break
        frame = getattr(awaited, f"{kinds[0]}_frame")
        if frame is not None and _is_users(frame):
            found = frame
        awaited = getattr(awaited, {"gi": "gi_yieldfrom"}.get(kinds[0], f"{kinds[0]}_await"))
    return found


def _line(frame: FrameType | None) -> str:
    """Says at which line of the user's a frame, or what has called it, stands."""
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    if frame is None:
        return ""
    code = frame.f_code
    return f" at {code.co_filename}:{frame.f_lineno}, in {code.co_qualname}"


def _is_users(frame: FrameType) -> bool:
    """Whether a frame is neither of Wool's nor of the standard library's."""
    file = frame.f_code.co_filename
    library = file.startswith(_LIBRARY) and "site-packages" not in file
    return not library and str(frame.f_globals.get("__name__", "")).partition(".")[0] != "wool"
