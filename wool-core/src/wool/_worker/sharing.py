"""A routine's share in the context variables of its caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from typing import Any

from wool._serialization.codec import Codec
from wool._serialization.context import Arrived, Change, Kind
from wool._serialization.mirror import Mirror, changed_since
from wool.abc import Buffer

MAX_REMARK = 2000
"""Characters of what the caller is told of a context variable."""


class Sharing:
    """The context variables that a routine and its caller share, in the routine's task.

    Args:
        crossing: whether what the two sides send may cross.
    """

    __slots__ = ("_before", "_codec", "_crossing", "_mirror", "_unsent")

    def __init__(self, codec: Codec, *, crossing: bool = False) -> None:
        self._codec = codec
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

    async def take(
        self, arrived: Sequence[Arrived], load: Callable[[Sequence[Buffer]], Awaitable[Any]]
    ) -> None:
        """Sets what has changed in the caller's context; `load` rebuilds a value."""
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
        codec = self._codec.context
        if self._mirror is None and codec is not None and self._before is not None:
            self._mirror = Mirror(codec, self.remark, self._before, crossing=self._crossing)
        return self._mirror
