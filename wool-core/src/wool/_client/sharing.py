"""A call's share in the context variables of its caller."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wool._exchange.running import RUNNING
from wool._serialization.codec import Codec
from wool._serialization.context import Arrived, Change
from wool._serialization.mirror import Mirror
from wool._serialization.variables import VARIABLES
from wool.abc import Buffer
from wool.exceptions import ContextWarning


class Complaints:
    """What the user of a pool has been told of variables that do not travel; of each once."""

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


class Sharing:
    """The context variables that a call and its caller share.

    Args:
        complaints: what the user has been told.
        crossing: whether what the two sides send may cross.
    """

    __slots__ = ("_codec", "_complaints", "_crossing", "_mirror")

    def __init__(self, codec: Codec, complaints: Complaints, *, crossing: bool = False) -> None:
        self._codec = codec
        self._complaints = complaints
        self._crossing = crossing
        self._mirror: Mirror | None = None  # made when there is something to share

    def changes(self) -> Sequence[Change]:
        """Returns what the routine has to know of the current context."""
        if self._mirror is None:
            codec = self._codec.context
            if codec is None or not (codec.translators or VARIABLES.any_set()):
                return ()
            self._make_mirror()
        return () if self._mirror is None else self._mirror.changes()

    def _make_mirror(self) -> None:
        codec = self._codec.context
        if codec is not None:
            self._mirror = Mirror(codec, self._complaints.make, crossing=self._crossing)

    async def take(
        self,
        changes: Sequence[Arrived],
        load: Callable[[Sequence[Buffer]], Awaitable[Any]],
    ) -> None:
        """Makes the changes that the routine has made in the current context.

        Args:
            load: rebuilds a value.
        """
        if self._mirror is None:
            self._make_mirror()
        if self._mirror is not None:
            await self._mirror.take(changes, load)
