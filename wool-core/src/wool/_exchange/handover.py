"""Calls that have not begun and travel: their originals are
handed over until it is known what came of it.

Once the call that took them along may have begun, the originals are closed: they begin elsewhere,
if at all. If it provably never will, they can be used again. Until then they must not begin here
as well, so a call handed over that is used behaves as one that was used before.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FrameType

from wool._serialization.calls import Call, close_call, frame_of, unstarted


class Handover:
    """Calls handed over together."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._calls: list[tuple[Call, FrameType]] = []
        for call in calls:
            frame = frame_of(call)
            if frame is not None:
                self._calls.append((call, frame))
                frame.f_globals["__routine__"].hand_over(frame)

    def settle(self, *, taken: bool) -> None:
        """Ends it: closes the originals if they were taken, else gives them back."""
        calls, self._calls = self._calls, []
        for call, frame in calls:
            frame.f_globals["__routine__"].handed_over.discard(frame)
            if taken and frame_of(call) is not None and unstarted(call):
                close_call(call)
