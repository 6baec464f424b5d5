"""Calls that have not begun and travel: their originals are lent until it is known what came of it.

Once the call that took them along may have begun, the originals are closed: they begin elsewhere,
if at all. If it provably never will, they can be used again. Until then they must not begin here
as well, so a lent call that is used behaves as one that was used before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from wool._client.current import choose_pool
from wool._client.routine import Routine, open_stream
from wool._serialization.calls import Call, close_call, frame_of, unstarted

if TYPE_CHECKING:
    from wool._client.pool import Pool


class Loans:
    """Calls lent together."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._loans: list[tuple[Call, FrameType]] = []
        for call in calls:
            frame = frame_of(call)
            if frame is not None:
                self._loans.append((call, frame))
                _lend(frame)

    def settle(self, *, taken: bool) -> None:
        """Ends the loans: closes the originals if they were taken, else gives them back."""
        loans, self._loans = self._loans, []
        for call, frame in loans:
            frame.f_globals["__routine__"].lent.discard(frame)
            if taken and frame_of(call) is not None and unstarted(call):
                close_call(call)


def _lend(frame: FrameType) -> None:
    scope = frame.f_globals
    routine: Routine = scope["__routine__"]
    routine.lent.add(frame)
    # From now on all calls of this routine ask before they begin; those of others never do.
    if routine.is_stream:
        scope["__stream__"] = _open_unless_lent
    else:
        scope["__choose__"] = _choose_unless_lent


def _choose_unless_lent() -> Pool | None:
    """Stands in for `choose_pool` in the body of a call."""
    frame = sys._getframe(1)
    if frame in frame.f_globals["__routine__"].lent:
        raise RuntimeError("cannot reuse already awaited coroutine")
    return choose_pool()


def _open_unless_lent(routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands in for `open_stream` in the body of a stream."""
    if sys._getframe(1) in routine.lent:
        return _Ended()
    return open_stream(routine, args, kwargs)


class _Ended:
    """The steps of a generator that has ended."""

    error: None = None

    async def step(self, value: Any, thrown: bool) -> bool:
        return False
