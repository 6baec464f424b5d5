"""The executor: begins calls on the thread and event loop that user code has to itself.

Received calls wait in `pending` until the loop comes round to them, one per turn, so that a call
which another worker could begin sooner can still be given back. Taking a call out of `pending` is
the claim, both for beginning it here and for giving it back on the I/O thread: a single dictionary
operation, so no lock is needed and no call is ever claimed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from wool._peer.incoming import IncomingCall, State
from wool._worker.lifespan import Lifespan

Post = Callable[[], None]


class Queued(IncomingCall):
    """A call that waits for its turn to begin; see `execution.Execution`.

    Attributes:
        context: what it runs in.
    """

    __slots__ = ("context",)

    context: contextvars.Context | None

    async def run(self) -> None:
        """Executes the call; the body of its task."""
        raise NotImplementedError

    def miss(self) -> None:
        """Its task was cancelled, by somebody here, before its first step: that is how it ends."""
        raise NotImplementedError


class Executor:
    """Runs calls on `loop`, at most `concurrency` of them at once unless that is None.

    A call counts only while it is begun and not waiting for a Wool operation of its own, so a limit
    never keeps nested calls from beginning.

    Attributes:
        pending: calls that have not begun, in order of arrival.
        running: calls that have begun and not ended.
        lifespan: what has been entered for all of them.
        ended: how many calls have ended.
        on_exhausted: called if there is no memory left to answer with.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: int | None) -> None:
        self.loop = loop
        self.pending: dict[int, Queued] = {}
        self.running: set[Queued] = set()
        self.lifespan = Lifespan(loop)
        self.ended = 0
        self.targets: dict[str, Any] = {}
        self._order: deque[int] = deque()
        self._starting: list[Queued] = []
        self._limit = concurrency
        self._active = 0
        self._held = 0
        self._pulling = False
        self._thread = 0
        self._process = os.getpid()
        self._context = contextvars.Context()
        self._post_idle: Post = lambda: None
        self.on_exhausted: Post = lambda: None

    def attach(self, post_idle: Post) -> None:
        """Says whom to tell that there is nothing to begin."""
        self._post_idle = post_idle

    # On any thread ------------------------------------------------------------------------------

    def submit(self, execution: Queued) -> None:
        """Adds a call."""
        key = id(execution)
        self.pending[key] = execution
        self._order.append(key)
        if not self._pulling:
            self._pulling = True
            try:
                self._pull_soon()
            except BaseException:  # a handler of a signal has raised
                self._pulling = False
                raise

    def _pull_soon(self) -> None:
        """Pulls in the next turn; a loop that is in the midst of one need not be woken for it."""
        if self.is_here:
            self.loop.call_soon(self._pull)
        else:
            self.call(self._pull)

    def claim(self, execution: IncomingCall) -> bool:
        """Takes a call that has not begun away from the executor; False if it has begun."""
        claimed = self.pending.pop(id(execution), None) is not None
        if claimed:
            execution.give_up()
        return claimed

    def waiting(self, caller: object) -> list[Queued]:
        """Returns the calls of a caller that have not begun."""
        return [e for e in list(self.pending.values()) if e.peer is caller]

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the executor's loop."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the worker is stopping: nothing runs there any more

    @property
    def load(self) -> int:
        """Calls begun or waiting."""
        return len(self.pending) + len(self.running)

    @property
    def idle(self) -> bool:
        """Whether a call could begin at once."""
        return not self.pending and self._has_slot

    @property
    def delayed(self) -> bool:
        """Whether calls would go on, or begin, if the loop turned."""
        return len(self.running) > 1 or (bool(self.pending) and self._has_slot)

    # On the executor's thread -------------------------------------------------------------------

    def _pull(self) -> None:
        """Begins the next call; comes back after its first step."""
        if self._starting:
            self._look_after()
        while self._order and self._has_slot:
            execution = self.pending.pop(self._order.popleft(), None)
            if execution is not None:
                self._begin(execution)
                self.loop.call_soon(self._pull)
                return
        self._pulling = False
        if self._order and self._has_slot:
            self._pull()  # a call came in between
        elif not self._order:
            self._post_idle()

    def _look_after(self) -> None:
        """Ends calls that were begun and have had no first step.

        Who cancels all tasks of the loop cancels theirs, and a task that is cancelled so early runs
        nothing at all.
        """
        starting, self._starting = self._starting, []
        for execution in starting:
            if execution.task is not None and execution.state < State.RUNNING:
                if execution.task.done():
                    execution.miss()
                else:
                    self._starting.append(execution)

    @property
    def _has_slot(self) -> bool:
        return (self._limit is None or self._active < self._limit) and not self._held

    def hold(self) -> bool:
        """Begins no calls until `release`, if this is the executor's thread; says whether it is.

        A routine has made calls, and connections to other workers are being made for them on this
        loop. Calls that block it would hold that up, and the others would have nothing to do.
        """
        if not self.is_here:
            return False
        self._held += 1
        return True

    def release(self) -> None:
        """Ends one `hold`."""
        self._held -= 1
        if not self._held and not self._pulling:
            self._pulling = True
            self.loop.call_soon(self._pull)

    def _begin(self, execution: Queued) -> None:
        self._thread = threading.get_ident()
        self.running.add(execution)
        self.enter()
        execution.context = self._context.copy()
        # A task factory that users set, such as `asyncio.eager_task_factory`, is for their tasks.
        work, context = execution.run(), execution.context
        execution.task = asyncio.Task(work, loop=self.loop, context=context)
        self._starting.append(execution)

    def enter(self) -> None:
        """A call takes a slot; it never has to wait for one here."""
        self._active += 1

    def leave(self) -> None:
        """A call frees its slot, for good or while it waits for another call."""
        self._active -= 1
        if self._order and not self._pulling:
            self._pulling = True
            self.loop.call_soon(self._pull)

    @property
    def is_here(self) -> bool:
        """Whether this is the executor's thread."""
        return threading.get_ident() == self._thread

    @property
    def thread(self) -> int:
        """The executor's thread, once a call has begun."""
        return self._thread

    @property
    def forked(self) -> bool:
        """Whether this is a process that a routine has forked."""
        return os.getpid() != self._process


def leave_fork(error: BaseException | None = None) -> NoReturn:
    """Ends a process that a routine has forked, and that comes back from the routine.

    What it is in the midst of is its parent's: to answer calls, over the same connections, above
    all.

    Args:
        error: what it comes back with.
    """
    status = error.code if isinstance(error, SystemExit) else 1
    with contextlib.suppress(Exception):  # the streams may have been closed
        if not isinstance(error, SystemExit):
            what = "returned from it" if error is None else "let an exception pass"
            sys.stderr.write(f"A process forked by a routine has {what}: end it with os._exit()\n")
            if error is not None:
                traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))
