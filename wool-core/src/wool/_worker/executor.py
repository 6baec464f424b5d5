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
import math
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol

from wool._code.loading import NO_REFERENTS, Referents
from wool._peer.incoming import IncomingCall
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._worker.lifespan import Lifespan
from wool._worker.output import Capture

Post = Callable[[], None]


class _Begin(tuple[None]):
    """Yields once, when it is awaited."""

    __slots__ = ()
    __await__: Any = tuple[None].__iter__


BEGIN = _Begin([None])
"""A coroutine that awaits this first is run up to there before it becomes the body of a task.

Whoever cancels all tasks of a loop may do so before the first step of some. A coroutine that has
not been run at all would end without a trace; this one gets the cancel there.
"""


class Queued(IncomingCall):
    """A call that waits for its turn to begin; see `execution.Execution`.

    Attributes:
        context: what it runs in.
    """

    context: contextvars.Context | None = None

    async def run(self) -> None:
        """Executes the call; the body of its task. It begins by awaiting `BEGIN`."""
        raise NotImplementedError

    def resume(
        self, frame: f.Resume, segments: Sequence[Buffer], referents: Referents = NO_REFERENTS
    ) -> None:
        """Asks a stream for its next step; other calls have none."""


class Prompt(Protocol):
    """A debugger's hold on its console, or its wait for it; see `debugging.Console`."""

    call: object
    frame: FrameType

    def release(self) -> None:
        """Lets another debugger have it."""

    def quit(self) -> None:
        """Has the debugger end; on any thread."""


class Debuggers:
    """The debuggers of a worker, or of a process that is none.

    Attributes:
        prompts: those that have stopped a thread, by its number.
        ending: whether none stops anything any more.
    """

    def __init__(self) -> None:
        self.prompts: dict[int, Prompt] = {}
        self.ending: bool = False

    def quit(self) -> None:
        """Has them end, and no others begin."""
        self.ending = True
        for prompt in list(self.prompts.values()):
            prompt.quit()


class Executor:
    """Runs calls on `loop`, at most `concurrency` of them at once unless that is None.

    A call counts only while it is begun and not waiting for a Wool operation of its own, so a limit
    never keeps nested calls from beginning.

    Attributes:
        pending: calls that have not begun, in order of arrival.
        running: calls that have begun and not ended.
        active: how many of those do not wait for a Wool operation of their own.
        limit: of those; none begins while it is 0.
        lifespan: what has been entered for all of them.
        ended: how many calls have ended.
        capture: the means to know what they print, in a process that is the worker's own.
        debuggers: those that stop calls.
        process: that it is of; a routine may fork others.
        on_idle: called when there is nothing to begin.
        on_exhausted: called if there is no memory left to answer with.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: int | None) -> None:
        self.loop = loop
        self.pending: dict[int, Queued] = {}
        self.running: set[Queued] = set()
        self.lifespan = Lifespan(loop)
        self.ended = 0
        self.capture: Capture | None = None
        self.debuggers = Debuggers()
        self._order: deque[int] = deque()
        self._most = self.limit = math.inf if concurrency is None else concurrency
        self.active = 0
        self._held = 0
        self._pulling = False
        self._thread = 0
        self.process = os.getpid()
        self._context = contextvars.Context()
        self.on_idle: Post = lambda: None
        self.on_exhausted: Post = lambda: None

    # On any thread ------------------------------------------------------------------------------

    def submit(self, execution: Queued) -> None:
        """Adds a call; on the executor's own thread it begins at once, if none is before it."""
        key = id(execution)
        self.pending[key] = execution
        self._order.append(key)
        if not self._pulling:
            self._pulling = True
            try:
                if threading.get_ident() == self._thread:
                    self._pull()
                else:
                    self.call(self._pull)
            except BaseException:  # a handler of a signal has raised
                self._pulling = False
                raise

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
        return not self.pending and self.active < self.limit

    @property
    def delayed(self) -> bool:
        """Whether calls would go on, or begin, if the loop turned."""
        return len(self.running) > 1 or (bool(self.pending) and self.active < self.limit)

    @property
    def frame(self) -> FrameType | None:
        """The innermost frame of the executor's thread; where a debugger has stopped it."""
        prompt = self.debuggers.prompts.get(self._thread)
        return sys._current_frames().get(self._thread) if prompt is None else prompt.frame

    # On the executor's thread -------------------------------------------------------------------

    def _pull(self) -> None:
        """Begins the next call; comes back after its first step."""
        while self._order and self.active < self.limit:
            execution = self.pending.pop(self._order.popleft(), None)
            if execution is None:
                continue
            self._thread = threading.get_ident()
            self.running.add(execution)
            self.active += 1
            execution.context = context = self._context.copy()
            work = execution.run()
            work.send(None)
            # A task factory that users set, such as `asyncio.eager_task_factory`, is for theirs.
            execution.task = asyncio.Task(work, loop=self.loop, context=context)
            self.loop.call_soon(self._pull)
            return
        self._pulling = False
        if self._order and self.active < self.limit:
            self._pull()  # a call came in between
        elif not self._order:
            self.on_idle()

    def hold(self) -> bool:
        """Begins no calls until `release`, if this is the executor's thread; says whether it is.

        A routine has made calls, and connections to other workers are being made for them on this
        loop. Calls that block it would hold that up, and the others would have nothing to do.
        """
        if not self.is_here:
            return False
        self._held += 1
        self.limit = 0
        return True

    def release(self) -> None:
        """Ends one `hold`."""
        self._held -= 1
        if not self._held:
            self.limit = self._most
            if not self._pulling:
                self._pulling = True
                self.loop.call_soon(self._pull)

    def enter(self) -> None:
        """A call takes a slot; it never has to wait for one here."""
        self.active += 1

    def leave(self) -> None:
        """A call frees its slot, for good or while it waits for another call."""
        self.active -= 1
        if self._order and not self._pulling:
            self._pulling = True
            self.loop.call_soon(self._pull)

    @property
    def is_here(self) -> bool:
        """Whether this is the executor's thread."""
        return threading.get_ident() == self._thread


def leave_fork(error: BaseException | None = None) -> NoReturn:
    """Ends a process that a routine has forked, and that comes back from the routine.

    All that it is in the midst of is its parent's: above all to answer calls, over the same
    connections.

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
