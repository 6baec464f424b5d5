"""The last resort against orphans.

A worker notices on its I/O thread that its lifeline has closed, cancels what runs and ends. But C
code that never lets go of the interpreter lock silences that thread too. So the kernel is asked
for a signal when the lifeline is closed, with a handler that needs no interpreter: the C library's
own `alarm`, which, called with the signal's number as its argument, has SIGALRM end the process
that many seconds later. A worker that winds down by itself has ended by then.
"""

from __future__ import annotations

import os
import signal
import sys


def kill_when_parent_dies(lifeline: int) -> None:
    """Bounds how long this process can outlive whoever holds the other end of `lifeline`.

    Linux only, because it needs a signal that nobody uses and that says which descriptor it is for.
    Elsewhere, and where Python was built without libffi, the I/O thread's own watch has to do.
    """
    if sys.platform != "linux":
        return
    import fcntl

    try:
        import ctypes
    except (ImportError, OSError):  # which no worker has to end for
        return

    number = signal.SIGSTKFLT  # 16: never raised by Linux, so the alarm rings after 16 s
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal(int(number), ctypes.cast(library.alarm, ctypes.c_void_p))
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, int(number))  # type: ignore[attr-defined]
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
