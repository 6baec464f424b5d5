"""The answers of a worker, on their way from the thread of user code to the I/O thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence

from wool._peer.peer import Peer
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._worker.executor import leave_fork


class Answers:
    """Answers that wait to be sent, in their order; made on the I/O thread, which sends them.

    An answer that nothing is before may be sent without it; see `callerpeer.CallerPeer.answer`.

    Args:
        process: the worker's own; a routine may fork others.

    Attributes:
        waiting: the answers, each with its caller.
        woken: whether the I/O thread has been woken for them, or is sending them.
    """

    def __init__(self, process: int) -> None:
        self.waiting: deque[tuple[Peer, f.Answer, Sequence[Buffer]]] = deque()
        self.woken = False
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._sending = threading.Lock()  # keeps their order

    # On the executor's thread -------------------------------------------------------------------

    def put(self, caller: Peer, frame: f.Answer, segments: Sequence[Buffer]) -> None:
        """Has an answer sent by the I/O thread, together with others."""
        self.waiting.append((caller, frame, segments))
        self._wake()

    def join(self, frame: f.Value, segments: list[Buffer], value: Buffer) -> bool:
        """Adds a value to an answer that waits.

        Returns False if it is being sent, or is not the last one: to take it back is the claim.
        """
        if os.getpid() != self._process:
            leave_fork()
        try:
            answer = self.waiting.pop()
        except IndexError:
            return False
        waits = answer[1] is frame
        if waits:
            frame.sizes.append(len(value))
            segments.append(value)
        self.waiting.append(answer)
        self._wake()
        return waits

    def flush(self) -> None:
        """Sends what waits from here, as far as that is possible at once.

        The I/O thread has been woken for it, and may have to wait long until it may run.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            while self.waiting:
                caller, frame, segments = self.waiting[0]
                if not caller.send_now(frame, segments):
                    return
                self.waiting.popleft()
        finally:
            self._sending.release()

    def _wake(self) -> None:
        if not self.woken:
            self.woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is stopping
                self._loop.call_soon_threadsafe(self._send)

    # On the I/O thread --------------------------------------------------------------------------

    def _send(self) -> None:
        with self._sending:
            alone = len(self.waiting) == 1  # then the session's writer is of no use
            while self.waiting or self.woken:
                if not self.waiting:
                    self.woken = False  # and look once more: something may just have been put
                    continue
                self.woken = True  # until all are sent: what is put meanwhile comes behind them
                caller, frame, segments = self.waiting.popleft()
                try:
                    if not (alone and caller.send_now(frame, segments)):
                        caller.send(frame, segments)
                except Exception as error:  # one answer must not keep the others
                    context = {"message": "an answer could not be sent", "exception": error}
                    self._loop.call_exception_handler(context)
                    caller.session.fail(error)
