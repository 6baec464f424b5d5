"""Debuggers in the calls of a worker, at the terminal of the program that it belongs to.

A worker that a pool has started on this machine is of the program's process group, so it may use
the terminal. One debugger has it at a time: a lock is on the terminal itself, for all processes.
Imported by the first `breakpoint()`, for `pdb` takes long to import.
"""

from __future__ import annotations

import bdb
import contextlib
import fcntl
import inspect
import io
import os
import pdb
import selectors
import socket
import sys
import termios
import threading
from types import FrameType, TracebackType
from typing import Any

from wool._peer.running import RUNNING
from wool._worker.execution import Execution
from wool._worker.executor import Debuggers, Executor

INTERRUPT = b"\x03"
"""Ctrl-C, as it is typed."""


def stop(executor: Executor, frame: FrameType, header: str = "", **options: Any) -> None:
    """Opens a debugger where a frame stands; the arguments are those of `breakpoint`.

    Raises:
        RuntimeError: there is no terminal.
        bdb.BdbQuit: the user has quit the debugger, or the worker ends.
    """
    call = RUNNING.get()
    debugger = Debugger(Terminal(executor.debuggers, call, frame), call)
    if isinstance(call, Execution) and call.task is not None and executor.is_here:
        call.task.add_done_callback(lambda _: debugger.end())
    who = f"{call.name}()" if isinstance(call, Execution) else "code outside of calls"
    debugger.message(f"{who} stands at a breakpoint in worker {os.getpid()}")
    if header:
        debugger.message(header)
    debugger.set_trace(frame, **options)


class Console(io.TextIOBase):
    """The place where a debugger talks to its user, which a thread takes, and gives back.

    Args:
        call: whose debugger uses it; None: code that runs in none.
        frame: where that stands.
    """

    def __init__(self, debuggers: Debuggers, call: object, frame: FrameType) -> None:
        self.call = call
        self.frame = frame
        self._debuggers = debuggers
        self._held = False

    def take(self) -> None:
        """Has the thread known as one that a debugger has stopped."""
        if self._held:
            return
        outer = self._debuggers.prompts.get(threading.get_ident())
        if outer is not None:  # of a debugger that has stepped to this breakpoint
            outer.release()
        self._woken, self._waker = socket.socketpair()
        self._debuggers.prompts[threading.get_ident()] = self
        self._held = True

    def release(self) -> None:
        """Lets the thread go on, and another debugger ask."""
        if self._held:
            self._held = False
            del self._debuggers.prompts[threading.get_ident()]
            self._woken.close()
            self._waker.close()

    def quit(self) -> None:
        """Has whoever waits for a line wait no more; on any thread."""
        with contextlib.suppress(OSError):  # it has just been given back
            self._waker.send(b".")

    def wait_for(self, source: io.FileIO | socket.socket) -> bool:
        """Waits until there is something to read; False if the debugger is to end instead."""
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            woken = selector.register(self._woken, selectors.EVENT_READ)
            return woken not in (key for key, _ in selector.select())


class Terminal(Console):
    """The terminal of the program, which one debugger has at a time."""

    def take(self) -> None:
        """Waits until no other debugger has the terminal."""
        if self._held:
            return
        self._tty = _open()
        super().take()
        try:
            fcntl.flock(self._tty, fcntl.LOCK_EX)
            if self._debuggers.ending:
                raise bdb.BdbQuit
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets another debugger have it."""
        if self._held:
            self._tty.close()
        super().release()

    def write(self, text: str) -> int:
        self.take()
        self._tty.write(text.encode(errors="replace"))
        return len(text)

    def readline(self, size: int = -1, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns what is typed; nothing for Ctrl-D.

        Ctrl-C would interrupt the program and all its workers: for as long as a line is typed, it
        is a character that ends the line.
        """
        self.take()
        before = termios.tcgetattr(self._tty)
        mode = termios.tcgetattr(self._tty)
        mode[3] = (mode[3] | termios.ICANON | termios.ECHO) & ~termios.ISIG
        mode[6][termios.VEOL] = INTERRUPT
        termios.tcsetattr(self._tty, termios.TCSANOW, mode)
        try:
            if not self.wait_for(self._tty):
                raise bdb.BdbQuit
            typed = os.read(self._tty.fileno(), 1 << 16)
        except OSError as error:  # the terminal is gone, or others have it
            raise bdb.BdbQuit from error
        finally:
            if _is_ours(self._tty):
                termios.tcsetattr(self._tty, termios.TCSANOW, before)
        if typed.endswith(INTERRUPT):
            self._tty.write(b"\n")
            raise KeyboardInterrupt
        return typed.decode(errors="replace")


def _open() -> io.FileIO:
    """Opens the terminal, by its own name if that can be known: the lock is on what has it."""
    path = "/dev/tty"
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            path = os.ttyname(stream)
    with contextlib.suppress(OSError):
        tty = io.FileIO(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+")
        if _is_ours(tty):
            return tty
        tty.close()
    raise RuntimeError(
        f"breakpoint() has no terminal in worker {os.getpid()}, whose program does not run in the "
        "foreground of one on this machine: debug with WorkerPool(transport='memory'), whose "
        "workers are threads of the program, or name a debugger of your own in PYTHONBREAKPOINT"
    )


def _is_ours(tty: io.FileIO) -> bool:
    """Whether this process is in the group that may use the terminal."""
    try:
        return os.tcgetpgrp(tty.fileno()) == os.getpgrp()
    except OSError:  # it is not that of this session
        return False


class Debugger(pdb.Pdb):
    """Follows one call: it stops neither in others nor in Wool, and ends with the call."""

    def __init__(self, console: Console, call: object) -> None:
        self._call = call
        self._console = console
        stream: Any = console
        super().__init__(stdin=stream, stdout=stream, nosigint=True)

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Overlooks what is not this call's; lets others have the terminal when the call waits."""
        if not self.is_meant() or is_overlooked(frame):
            return None
        self._console.call, self._console.frame = RUNNING.get(), frame
        try:
            return super().trace_dispatch(frame, event, arg)
        finally:
            if event == "return" and frame.f_code.co_flags & _SUSPENDS:
                self._console.release()

    def is_meant(self) -> bool:
        """Whether what runs now is to be followed."""
        return RUNNING.get() is self._call

    def set_continue(self) -> None:
        """Lets the call go on."""
        super().set_continue()
        self._console.release()

    def set_quit(self) -> None:
        """Ends the call with `BdbQuit`."""
        super().set_quit()
        self._console.release()

    def end(self) -> None:
        """Has nothing more to follow."""
        self.clear_all_breaks()
        if sys.gettrace() == self.trace_dispatch:  # no other debugger has followed
            self.set_continue()

    def get_stack(
        self, f: FrameType | None, t: TracebackType | None
    ) -> tuple[list[tuple[FrameType, int]], int]:
        """Leaves out the frames of what has called the routine."""
        stack, current = super().get_stack(f, t)
        names = [frame.f_globals.get("__name__", "") for frame, _ in stack]
        outer = [i for i, name in enumerate(names) if name.startswith("wool.") and i < current]
        first = outer[-1] + 1 if outer else 0
        return stack[first:], current - first


def is_overlooked(frame: FrameType) -> bool:
    """Whether a frame is of what runs the calls."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in ("wool", "asyncio", "selectors")


_SUSPENDS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
