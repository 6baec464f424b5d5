"""Calls that have not begun and travel: their originals are lent until it is known what came of it.

Once the call that took them along may have begun, the originals are closed: they begin elsewhere,
if at all. If it provably never will, they can be used again. Until then they must not begin here
as well, so a lent call that is used behaves as one that was used before.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FrameType

from wool._serialization.calls import Call, close_call, frame_of, unstarted


class Loans:
    """Calls lent together."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._loans: list[tuple[Call, FrameType]] = []
        for call in calls:
            frame = frame_of(call)
            if frame is not None:
                self._loans.append((call, frame))
                frame.f_globals["__routine__"].lend(frame)

    def settle(self, *, taken: bool) -> None:
        """Ends the loans: closes the originals if they were taken, else gives them back."""
        loans, self._loans = self._loans, []
        for call, frame in loans:
            frame.f_globals["__routine__"].lent.discard(frame)
            if taken and frame_of(call) is not None and unstarted(call):
                close_call(call)
