"""The main program of a spawned worker.

The main thread belongs to user code; the I/O thread serves callers, watches the lifeline and sees
to it that the process ends when it should, whatever the main thread is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import marshal
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import Any, BinaryIO

from wool._addresses import reached_host
from wool._client.identity import VERSION
from wool._forks import after_fork
from wool._plugins.lookup import SERIALIZER, load_from, observers_from
from wool._security.credentials import restore_keyring
from wool._settings.sending import load
from wool._worker.executor import Executor
from wool._worker.loops import EXIT_GRACE, close_loop, new_loop, run_until
from wool._worker.memory import watch_memory
from wool._worker.output import Capture
from wool._worker.server import Setup
from wool._worker.service import Service
from wool._worker.transports import Transports
from wool.exceptions import VersionMismatch, WoolError

ORPHAN_GRACE = 3.0
"""Seconds that cancelled calls get to end, at most, when the process of the pool has died."""

DRAIN, DRAINED, STOPPED, ORPHANED = "drain", "drained", "stopped", "orphaned"
"""Reasons for a worker to end, or to begin to."""

PARTING = 0.1
"""Seconds that a drained worker waits for news of its pool's process: a signal to their group ends
both, and the last one removes what they had."""


def main(lifeline: BinaryIO, report: int) -> None:
    """Runs a worker until it is told to stop or its lifeline closes.

    Args:
        lifeline: what comes from the pool.
        report: the descriptor for what the pool is told.
    """
    try:
        config: dict[str, Any] = marshal.load(lifeline)
    except EOFError:
        return  # whoever has started it is gone already
    print_whole_lines()
    loop = new_loop(config["loop"])
    asyncio.set_event_loop(loop)
    executor = Executor(loop, config["concurrency"])
    executor.capture = Capture()
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = partial(_on_breakpoint, executor)
    executor.on_exhausted = partial(os.kill, os.getpid(), signal.SIGKILL)  # takes no memory
    after_fork(partial(_keep_running, executor))
    serving = _Serving(config, lifeline.fileno(), report, executor)
    # A terminal's Ctrl-C, or that it is closed, reaches the whole process group; the pool's process
    # decides. Not ignored: what a routine starts would inherit that.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked since the process began
    signal.signal(signal.SIGTERM, lambda number, frame: serving.drain())
    thread = threading.Thread(target=serving.run, name="wool-io", daemon=True)
    thread.start()
    run_until(loop, serving.over.is_set)
    serving.left.set()
    thread.join(EXIT_GRACE)


def _keep_running(executor: Executor) -> None:
    """Lets a child that a routine has forked go on to where it ends.

    Since Python 3.14 no loop is running in a forked child, and a task there would fail for ever.
    """
    if executor.is_here:
        asyncio._set_running_loop(executor.loop)


def _on_breakpoint(executor: Executor, *args: Any, **options: Any) -> None:
    """Opens a debugger at the terminal of the program: Python's own has nothing to read from."""
    from wool._worker.debugging import stop

    stop(executor, sys._getframe(1), *args, **options)


def print_whole_lines() -> None:
    """Has each printed line leave in one piece, and at once.

    Workers share standard output and error. Buffered by block, what a killed one had printed would
    be lost; unbuffered, `print` writes a line in pieces, between which others would write theirs.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if the caller has closed its own
            stream.reconfigure(line_buffering=True, write_through=False)


class _Serving:
    """The work of the I/O thread: it serves, and ends the process when that is over.

    Attributes:
        over: set when it is.
        left: to be set when the main thread has let go of its loop.
    """

    def __init__(
        self, config: dict[str, Any], lifeline: int, report: int, executor: Executor
    ) -> None:
        self.over = threading.Event()
        self.left = threading.Event()
        self._config = config
        self._lifeline = lifeline
        self._to_pool = report
        self._executor = executor
        self._loop = new_loop(config["loop"])
        self._reasons = asyncio.Queue[str]()

    def run(self) -> None:
        """Serves until the worker ends."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except WoolError as error:
            self._report({"error": f"{type(error).__name__}: {error}"})
        finally:
            os.close(self._lifeline)
            os.close(self._to_pool)
            close_loop(self._loop)
            self.over.set()
            self._executor.call(self._executor.loop.stop)
            if not self.left.wait(EXIT_GRACE):
                os._exit(1)  # user code does not let go of the main thread

    def drain(self) -> None:
        """Lets running calls finish, then ends; also for the signal handler."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reasons.put_nowait, DRAIN)

    async def _serve(self) -> None:
        if self._config["memory_limit"] is not None:
            watch_memory(self._config["memory_limit"])
        service = Service(setup(self._config), self._executor, self.drain)
        info = await service.open()
        self._loop.add_reader(self._lifeline, self._on_lifeline)
        self._report({"address": info.address, "host": info.host, "pid": info.pid})
        _kill_when_parent_dies(self._lifeline)
        reason = await self._until_over(service)
        grace = self._config["cancel_grace"]
        await service.aclose(
            drain=None, grace=min(grace, ORPHAN_GRACE) if reason == ORPHANED else grace
        )
        if reason == DRAINED:
            with contextlib.suppress(TimeoutError):
                reason = await asyncio.wait_for(self._reasons.get(), PARTING)
        if reason == ORPHANED:
            service.discard()

    async def _until_over(self, service: Service) -> str:
        """Waits until nothing is to be served any more; returns why."""
        draining: asyncio.Task[None] | None = None
        while (reason := await self._reasons.get()) == DRAIN:
            if draining is None:
                draining = asyncio.create_task(service.drained(self._config["drain_timeout"]))
                draining.add_done_callback(lambda _: self._reasons.put_nowait(DRAINED))
        if draining is not None:
            draining.cancel()
        return reason

    def _on_lifeline(self) -> None:
        """The pool wants the worker to stop, or its process is gone."""
        try:
            data = os.read(self._lifeline, 16)
        except OSError:
            data = b""
        self._loop.remove_reader(self._lifeline)
        self._reasons.put_nowait(STOPPED if data else ORPHANED)

    def _report(self, report: dict[str, Any]) -> None:
        data = marshal.dumps(report)
        with contextlib.suppress(OSError):
            os.write(self._to_pool, len(data).to_bytes(4, "little") + data)


def _kill_when_parent_dies(lifeline: int) -> None:
    """Bounds how long this process outlives the one that holds the other end of `lifeline`.

    C code that never lets go of the interpreter lock silences the I/O thread, which watches the
    lifeline. So the kernel is asked for a signal when the lifeline is closed, with a handler that
    needs no interpreter: the C library's own `alarm`, which, called with the signal's number as its
    argument, has SIGALRM end the process that many seconds later. A worker that winds down by
    itself has ended by then.

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


def setup(config: dict[str, Any]) -> Setup:
    """Reads what the pool has sent.

    Raises:
        WoolError: it comes from another version of Wool; or a back-end cannot be used here.
    """
    if config["wool"] != VERSION:
        raise VersionMismatch(
            f"{socket.gethostname()} has wool-core {VERSION}, and the pool {config['wool']}: "
            "install the same version"
        )
    name, module, options = config["serializer"]
    found = load_from(module, name, SERIALIZER)
    return Setup(
        id=config["id"],
        tags=config["tags"],
        transport=config["transport"],
        transports=Transports(config["transports"]),
        keyring=restore_keyring(config["keyring"]),
        serializer=found.make(load(found.plugin.options, options)),
        serializer_name=name,
        listen=_listen(config["listen"]) if config["elsewhere"] else config["listen"],
        observers=observers_from(config["observers"]),
        parent=config["pool"],
    )


def _listen(address: str) -> str:
    """Returns where to listen, for a worker that a launcher has started on whatever machine."""
    host = reached_host()
    return address.replace("//0.0.0.0:", f"//{host}:") if host else address
