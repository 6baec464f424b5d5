"""A debugger that `wool debug` attaches to this process, at the terminal where that was typed.

The command has the main thread run a script, which calls `attach`. The script's connection takes
text to the command, which shows it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pdb
import socket
import sys
from types import AsyncGeneratorType, FrameType, TracebackType
from typing import Any

from wool._peer.running import RUNNING
from wool._peer.stacks import awaited_frames, frames_running, is_users
from wool._transports.sockets import peer_uid
from wool._worker.debugging import Console, Debugger, is_overlooked
from wool._worker.execution import Execution
from wool._worker.executor import Debuggers, Executor

ASK = "\0"
"""Follows a prompt, and asks for a line."""

REFUSE = "\x15"
"""Precedes the reason for which there is no debugger."""

INTERRUPT, LEAVE = "\x03", "\x04"
"""The lines that say Ctrl-C and Ctrl-D."""


def attach(client: socket.socket, ident: str, frame: FrameType | None) -> None:
    """Opens a debugger. The command is told what is wrong with that, and nobody else.

    Args:
        client: the connection to the command, which is closed at the end.
        ident: of the call that is meant; empty: whatever runs.
        frame: the innermost one of this thread.
    """
    try:
        if peer_uid(client) != os.geteuid():
            raise Refused("another user has asked")
        if frame is None:
            raise Refused(f"process {os.getpid()} runs no Python code")
        _open(client, ident, frame)
    except BaseException as error:
        reason = str(error) if isinstance(error, Refused) else f"the debugger fails: {error!r}"
        with contextlib.suppress(OSError):
            client.sendall((REFUSE + reason).encode(errors="replace"))
        client.close()


class Refused(Exception):
    """There is nothing to be debugged here; says why."""


def _open(client: socket.socket, ident: str, frame: FrameType) -> None:
    if sys.gettrace() is not None or _is_in_debugger(frame):
        raise Refused(f"process {os.getpid()} has another debugger, or a tool that traces it")
    executor = _executor()
    call: object = RUNNING.get()
    frames, state = frames_running(frame), "runs"
    if ident:
        call = found = _find(executor, ident)
        if not found.stands:
            frames, state = _frames_waiting(found), "waits"
    frames = [f for f in frames if is_users(f)] or frames
    if not frames:
        raise Refused(f"{ident} is about to begin, or to end")
    console = Channel(Debuggers() if executor is None else executor.debuggers, call, frames, client)
    debugger = Attached(console, call, frames)
    name = f"process {os.getpid()}"
    if isinstance(call, Execution) and call.task is not None:
        call.task.add_done_callback(lambda _: debugger.end())
        name = f"{call.name}() {state} in worker {os.getpid()}"
    elif executor is not None:
        name = f"worker {os.getpid()} runs no call just now"
    debugger.message(f"{name}; c has it go on, q leaves")
    debugger.begin()


def _frames_waiting(call: Execution) -> list[FrameType]:
    """Returns the frames of a call that does not run just now; of a stream, also between steps."""
    frames = [] if call.task is None else list(awaited_frames(call.task.get_coro()))
    if not any(map(is_users, frames)):
        values = [value for frame in frames for value in frame.f_locals.values()]
        streams: list[Any] = [value for value in values if isinstance(value, AsyncGeneratorType)]
        frames = [stream.ag_frame for stream in streams if stream.ag_frame is not None]
    return frames


def _is_in_debugger(frame: FrameType | None) -> bool:
    """Whether this thread stands at the prompt of a debugger."""
    while frame is not None:
        if frame.f_globals.get("__name__") in ("bdb", "pdb"):
            return True
        frame = frame.f_back
    return False


def _executor() -> Executor | None:
    """Returns what runs calls on this thread; looked for, as programs are not prepared for that."""
    every = (found for found in gc.get_objects() if type(found) is Executor)
    return next((executor for executor in every if executor.is_here), None)


def _find(executor: Executor | None, ident: str) -> Execution:
    for call in () if executor is None else list(executor.running):
        if isinstance(call, Execution) and call.info.id == ident:
            return call
    raise Refused(
        f"{ident} does not run on the main thread of process {os.getpid()}: it has not begun, has "
        "just ended, or runs on another thread (transport='memory')"
    )


class Channel(Console):
    """The connection to the command."""

    def __init__(
        self, debuggers: Debuggers, call: object, frames: list[FrameType], client: socket.socket
    ) -> None:
        super().__init__(debuggers, call, frames[-1])
        self._client = client
        self._lines = client.makefile(encoding="utf-8", errors="replace", newline="\n")
        self.over = False

    @property
    def is_left(self) -> bool:
        """Whether the command has gone: it says nothing unless it is asked."""
        if not self.over:
            with contextlib.suppress(BlockingIOError):
                self._client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                return True
        return self.over

    def end(self) -> None:
        """Lets the command go."""
        self.over = True
        self.release()
        self._lines.close()
        self._client.close()

    def write(self, text: str) -> int:
        if not self.over:
            self.take()
            with contextlib.suppress(OSError):  # what is read next tells that it has gone
                self._client.sendall(text.replace(ASK, "").encode(errors="replace"))
        return len(text)

    def readline(self, size: int = -1, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the line that was typed; nothing if the user, or the worker, is to leave."""
        if self.over or self._debuggers.ending:
            return ""
        self.take()
        try:
            self._client.sendall(ASK.encode())
            line = self._lines.readline() if self.wait_for(self._client) else ""
        except OSError:
            return ""
        if line.startswith(INTERRUPT):
            raise KeyboardInterrupt
        return "" if line.startswith(LEAVE) else line


class Attached(Debugger):
    """Follows one call, or all that runs on its thread; leaving it changes nothing there.

    Args:
        call: the one; None: all.
        frames: where that stands, outermost first.
    """

    _console: Channel

    def __init__(self, console: Channel, call: object, frames: list[FrameType]) -> None:
        super().__init__(console, call)
        self._frames = frames

    def begin(self) -> None:
        """Asks at once, and follows from there if that is what the user wants."""
        self.reset()
        self.botframe = self._frames[0]
        try:
            pdb.Pdb.trace_dispatch(self, self._frames[-1], "line", None)
        except BaseException:
            self.end()
            raise
        if not self._console.over:
            for frame in self._frames:
                frame.f_trace = self.trace_dispatch
            atexit.register(self.end)  # before modules are taken apart
            sys.settrace(self.trace_dispatch)

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Lets everything be once the command has gone."""
        if self._console.is_left:
            self.end()
            return None
        traced = None
        try:
            traced = super().trace_dispatch(frame, event, arg)
        except Exception as error:  # of the debugger, which what it follows must not get
            self.message(f"*** the debugger fails: {error!r}")
            self.end()
        return None if self._console.over else traced

    def is_meant(self) -> bool:
        """Whether what runs now is to be followed."""
        return self._call is None or super().is_meant()

    def set_next(self, frame: FrameType) -> None:
        """Stops at the next line; of whatever comes, if this one is not the user's."""
        if is_overlooked(frame):
            self.set_step()
        else:
            super().set_next(frame)

    def set_continue(self) -> None:
        """Goes on to the next breakpoint; leaves if there is none."""
        if self.breaks:
            super().set_continue()
        else:
            self.end()

    def set_quit(self) -> None:
        """Leaves."""
        self.end()

    def end(self) -> None:
        """Leaves, and takes away all that tracing has set."""
        if self._console.over:
            return
        self._console.end()
        self.clear_all_breaks()
        super().set_continue()
        atexit.unregister(self.end)
        for frame in self._frames:
            frame.f_trace = None

    def get_stack(
        self, f: FrameType | None, t: TracebackType | None
    ) -> tuple[list[tuple[FrameType, int]], int]:
        """Returns the frames that await each other, as long as the call has not gone on."""
        if f is not None and f.f_back is None and f in self._frames:
            return [(frame, frame.f_lineno or 0) for frame in self._frames], len(self._frames) - 1
        return super().get_stack(f, t)

    def _refuse(self, arg: str) -> None:
        """Not while a debugger is attached to a process."""
        self.error("this is not for an attached debugger")

    do_debug = do_interact = do_restart = do_run = _refuse
