"""Starting worker processes, and knowing when they end.

A worker is a fresh interpreter, the same one with the same `sys.path`; it never imports the
caller's `__main__`. One inherited socket, the lifeline, carries its configuration, so that no
secret is on a command line, and its report that it is ready. The token is not in its environment
either, for what routines start would inherit it. Afterwards the lifeline only has to stay open:
when it closes, for whatever reason, the worker ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Generator
from typing import Any, cast

from wool._forks import after_fork
from wool._settings.sources import TOKEN
from wool.exceptions import ConfigurationError

_BOOT = (
    "import sys, marshal; stream = open(int(sys.argv.pop()), 'rb', closefd=False); "
    "sys.path[:] = marshal.load(stream) if stream.peek(1) else sys.exit(); "
    "from wool._worker.main import main; main(stream)"
)
STOP_SPARE = 5.0
"""Seconds a worker gets to end once the calls that it has cancelled have had theirs."""

STOP = b"."
"""Sent before the lifeline is closed on purpose."""

# Ends of lifelines held by this process. A fork must not hold them open.
_LIFELINES: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_lifelines() -> None:
    for lifeline in list(_LIFELINES):
        lifeline.close()


after_fork(_close_lifelines)


@contextlib.contextmanager
def _interrupts_held() -> Generator[None]:
    """Has a process started meanwhile begin with SIGINT blocked, until it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerProcess:
    """A worker process that has been started.

    Attributes:
        exited: its return code as `subprocess` has it, once it has ended. Belongs to no loop.

    Raises:
        ConfigurationError: the system has no way to hand a lifeline to a child.
    """

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise ConfigurationError(
                "a pool cannot start worker processes on Windows yet: use transport='memory', or "
                "discovery=… to call workers that run elsewhere"
            )
        self.exited: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._lifeline, theirs = socket.socketpair()
        _LIFELINES.add(self._lifeline)
        flags: list[str] = cast(Any, subprocess)._args_from_interpreter_flags()
        try:
            with _interrupts_held():
                self._popen = subprocess.Popen(
                    [sys.executable, *flags, "-c", _BOOT, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={name: value for name, value in os.environ.items() if name != TOKEN},
                )
        except BaseException:
            self._lifeline.close()
            raise
        finally:
            theirs.close()
        self._send([entry for entry in sys.path if isinstance(entry, str)])  # pyright: ignore[reportUnnecessaryIsInstance]
        self._lifeline.setblocking(False)
        _watch(self._popen, self._on_exit)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def configure(self, config: dict[str, Any]) -> None:
        """Tells the worker what to be."""
        self._send(config)

    def _send(self, value: Any) -> None:
        self._lifeline.setblocking(True)
        with contextlib.suppress(OSError):  # it has died: `exited` tells
            self._lifeline.sendall(marshal.dumps(value))
        self._lifeline.setblocking(False)

    async def ready(self) -> dict[str, Any]:
        """Waits until the worker serves; returns its report, empty if it died before."""
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
            try:
                more = await loop.sock_recv(self._lifeline, 65536)
            except OSError:
                more = b""
            if not more:
                return {}
            data += more
        return marshal.loads(data[4:])

    async def wait(self) -> int:
        """Waits until the process has ended; returns its return code."""
        # Shielded, for cancelling this wait must not cancel the future that all wait for.
        return await asyncio.shield(asyncio.wrap_future(self.exited))

    async def stop(self, grace: float) -> None:
        """Has the worker end; kills it if it does not.

        Args:
            grace: seconds that its calls get to clean up.
        """
        with contextlib.suppress(OSError):
            self._lifeline.send(STOP)
        self._lifeline.close()
        try:
            async with asyncio.timeout(grace + STOP_SPARE):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
        except asyncio.CancelledError:
            self.kill()
            await self.wait()  # it is reaped now, or not at all if the loop ends
            raise
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kills the worker."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def _on_exit(self) -> None:
        if not self.exited.done():
            self.exited.set_result(self._popen.wait())
        self._lifeline.close()


def _watch(popen: subprocess.Popen[bytes], on_exit: Any) -> None:
    """Calls `on_exit` when a child has ended, on the running loop."""
    loop = asyncio.get_running_loop()
    if not hasattr(os, "pidfd_open"):

        def wait() -> None:
            popen.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(on_exit)

        threading.Thread(target=wait, daemon=True).start()
        return
    descriptor = os.pidfd_open(popen.pid)

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        on_exit()

    loop.add_reader(descriptor, ended)


def describe_exit(code: int) -> str:
    """Says how a process ended, in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
