"""The cancels that a task gets on behalf of another process."""

from __future__ import annotations

import asyncio
from typing import Any


class Cancels:
    """Counts those that were delivered to a task, and those that it has uncancelled.

    The task may be cancelled by others as well, and before. It is passed in each time: whoever
    counts need not keep it.

    Attributes:
        delivered: how many there were, in this step.
    """

    __slots__ = ("_before", "delivered")

    def __init__(self) -> None:
        self.delivered = 0
        self._before = 0  # how often the task had been cancelled

    def begin(self, task: asyncio.Task[Any], early: int = 0) -> None:
        """Begins to count: the task runs, or makes its next step.

        Args:
            early: how many were delivered before that.
        """
        self.delivered = early
        self._before = task.cancelling() - early

    def deliver(self, task: asyncio.Task[Any], *argument: Any) -> None:
        """Cancels the task."""
        self.delivered += 1
        task.cancel(*argument)

    def pending(self, task: asyncio.Task[Any]) -> int:
        """Returns how many cancels, whoever they are from, have not been uncancelled."""
        return task.cancelling() - self._before

    def uncancelled(self, task: asyncio.Task[Any] | None) -> int:
        """Returns how many of those delivered have been."""
        if not self.delivered or task is None:
            return 0
        return max(0, self.delivered - self.pending(task))
