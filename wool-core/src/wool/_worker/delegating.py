"""When a caller's frames are to be read on the thread that executes calls: when that is idle."""

from __future__ import annotations

LEAST = 3
"""After so many frames in a row that found it idle, at first."""

MOST = 96
"""And at most, however short it lasted."""

LASTING = 12
"""Frames that have to be read there for it to have been worth beginning."""


class DelegationPolicy:
    """Counts one caller's frames.

    Reading that is delegated is taken back by large frames, by all that neither begin nor resume a
    call, and by calls that block. Where that happens often it is delegated less often.

    Attributes:
        taken: how many were read there since it was last delegated; counted by that thread.
    """

    __slots__ = ("_alone", "_began", "_needed", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._alone = 0
        self._began = False
        self._needed = LEAST

    def should_delegate(self, *, alone: bool) -> bool:
        """Returns whether to delegate, now that a frame was read by the I/O thread.

        Args:
            alone: whether it is small, and found the other thread idle.
        """
        if self._began:  # and is over
            self._began = False
            self._needed = LEAST if self.taken >= LASTING else min(2 * self._needed, MOST)
        self._alone = self._alone + 1 if alone else 0
        if self._alone < self._needed:
            return False
        self._alone = self.taken = 0
        self._began = True
        return True
