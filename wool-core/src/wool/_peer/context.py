"""The context variables that a call and its caller share: on either side."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import Protocol

from wool._peer.running import RUNNING
from wool._values.context import Change, ContextCodec, Kind, Load, Mirror, changed_since
from wool.exceptions import ContextWarning

MAX_REMARK = 2000
"""Characters of what the caller is told of a context variable."""


class Sharing(Protocol):
    """Says whether calls share context variables.

    Attributes:
        context: encodes them; None if they do not travel. May be another one later.
        complaints: what the user has been told.
    """

    context: ContextCodec | None
    complaints: Complaints


class Complaints:
    """Remarks to the user of a pool on variables that do not travel; one for each variable."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def make(self, label: str, text: str) -> None:
        """Warns the user; a call that runs on behalf of another process has that one warn."""
        running = RUNNING.get()
        if running is not None:
            running.remark(label, text)
        elif label not in self._made:
            self._made.add(label)
            warnings.warn(text, ContextWarning, stacklevel=_depth())


def _depth() -> int:
    """Returns how far up the stack there is code that is not Wool's."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").startswith("wool.") or "__routine__" in frame.f_globals
    ):
        depth, frame = depth + 1, frame.f_back
    return depth


class CallerContext:
    """The caller's side.

    Args:
        crossing: whether what the two sides send may cross.
    """

    __slots__ = ("_codec", "_complaints", "_crossing", "_mirror")

    def __init__(self, sharing: Sharing, *, crossing: bool = False) -> None:
        self._codec = sharing.context
        self._complaints = sharing.complaints
        self._crossing = crossing
        self._mirror: Mirror | None = None  # made when there is something to share

    def changes(self) -> Sequence[Change]:
        """Returns what the routine has to know of the current context."""
        codec = self._codec
        if codec is None or (self._mirror is None and not codec.any_set()):
            return ()
        return self._share(codec).changes()

    async def take(self, changes: Sequence[Change], load: Load) -> None:
        """Makes the changes that the routine has made in the current context."""
        if self._codec is not None:
            await self._share(self._codec).take(changes, load)

    def _share(self, codec: ContextCodec) -> Mirror:
        if self._mirror is None:
            self._mirror = Mirror(codec, self._complaints.make, crossing=self._crossing)
        return self._mirror


class RoutineContext:
    """The routine's side, in its own task.

    Args:
        crossing: as above.
    """

    __slots__ = ("_before", "_crossing", "_mirror", "_sharing", "_unsent")

    def __init__(self, sharing: Sharing, *, crossing: bool = False) -> None:
        self._sharing = sharing
        self._crossing = crossing
        self._before: Context | None = None
        self._mirror: Mirror | None = None  # made when there is something to share
        self._unsent: list[Change] = []

    def begin(self) -> None:
        """User code is about to begin: what is set from now on is the caller's business."""
        self._before = copy_context()

    def remark(self, label: str, text: str) -> None:
        """Has the caller told with the next answer that something does not travel."""
        self._unsent.append(Change([label], b"", Kind.REMARK, remark=text[:MAX_REMARK]))

    def end(self) -> None:
        """There is nothing to share any more: the contexts, which know the call, are let go."""
        self._before = self._mirror = None

    async def take(self, arrived: Sequence[Change], load: Load) -> None:
        """Sets what has changed in the caller's context."""
        mirror = self._share()
        if mirror is not None:
            await mirror.take(arrived, load)

    def changes(self) -> list[Change]:
        """Returns what the caller has to know, once."""
        before = self._before
        if self._mirror is not None or (before is not None and changed_since(before)):
            mirror = self._share()
            if mirror is not None:
                self._unsent += mirror.changes()
        if not self._unsent:
            return self._unsent
        changes, self._unsent = self._unsent, []
        return changes

    def _share(self) -> Mirror | None:
        codec = self._sharing.context
        if self._mirror is None and codec is not None and self._before is not None:
            self._mirror = Mirror(codec, self.remark, self._before, crossing=self._crossing)
        return self._mirror
