"""Tasks and futures of Wool's own on a loop that belongs to somebody else.

The owner of a loop may close it without ending the tasks that are left on it: `loop.close()` after
`run_until_complete`. Tasks of the user's own are complained about then, and rightly; of Wool's
nobody knows, so they go without a word. Nor are they for the loop's task factory: a task that
`asyncio.eager_task_factory` makes may have ended before whoever starts it can know it as begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: Context | None = None
) -> asyncio.Task[T]:
    """Starts a task that may vanish together with its loop."""
    task = asyncio.Task(work, loop=loop, context=context)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def settle(future: asyncio.Future[None]) -> None:
    """Ends a future, unless it has ended."""
    if not future.done():
        future.set_result(None)
