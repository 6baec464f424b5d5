"""Starting worker processes, and knowing when they end.

A worker is a fresh interpreter, which a launcher says how to start; on this machine it has the same
`sys.path`, and it never imports the caller's `__main__`. Its standard input, a socket, is its
lifeline: that carries the configuration, so that no secret is on a command line, and the report
that the worker is ready. The token is not in its environment either, for what routines start would
inherit it. Afterwards the lifeline only has to stay open: when it closes, for whatever reason, the
worker ends.

A worker elsewhere has the other end of a pipe there, which the command takes up to the lifeline:
its report goes to standard output. All that is printed goes to standard error.
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
from collections.abc import Generator, Mapping
from typing import Any

from wool._forks import after_fork
from wool._settings.sources import TOKEN
from wool._worker.memory import OVER_LIMIT
from wool.abc import Launcher
from wool.exceptions import ConfigurationError

# Garbage is looked for once everything is imported, of which nothing is any. All that is there by
# then is never looked at again.
_BOOT = """\
import gc, marshal, os, sys
gc.disable()
out = int(sys.argv.pop())
down, up = os.dup(0), os.dup(out)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
if out:
    os.dup2(2, 1)
stream = open(down, 'rb', closefd=False)
path, python, environment = marshal.load(stream) if stream.peek(1) else sys.exit()
sys.path[:] = path or sys.path
os.environ.update(environment)
error = ''
if python != sys.version_info[:2]:
    error = 'it is Python %d.%d, and the pool has %d.%d' % (sys.version_info[:2] + python)
else:
    try:
        from wool._worker.main import main
    except ModuleNotFoundError as missing:
        error = '%s: install wool-core there, as it is installed here' % missing
if error:
    report = marshal.dumps({'error': '%s on %s cannot be used: %s' % (
        sys.executable, os.uname()[1], error)})
    os.write(up, len(report).to_bytes(4, 'little') + report)
    sys.exit(1)
gc.freeze()
gc.enable()
main(stream, up)
"""
STOP_SPARE = 5.0
"""Seconds a worker gets to end once the calls that it has cancelled have had theirs."""

MOST_SAID = 2000
"""Bytes of standard error that are kept to say why a worker has failed."""

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


class OwnWorker:
    """A worker that a pool has started, in a process or a thread of its own.

    Attributes:
        exited: its return code as `subprocess` has it, once it has ended. Belongs to no loop.
    """

    def __init__(self) -> None:
        self.exited: concurrent.futures.Future[int] = concurrent.futures.Future()

    @property
    def waiting(self) -> str:
        """Says what it waits for, as long as it is not ready."""
        return ""

    async def ready(self) -> dict[str, Any]:
        """Waits until the worker serves; returns its report, or why it does not as `error`."""
        raise NotImplementedError

    async def wait(self) -> int:
        """Waits until it has ended; returns its return code."""
        # Shielded, for cancelling this wait must not cancel the future that all wait for.
        return await asyncio.shield(asyncio.wrap_future(self.exited))

    async def stop(self, grace: float) -> None:
        """Has the worker end, by force if need be.

        Args:
            grace: seconds that its calls get to clean up.
        """
        raise NotImplementedError

    def kill(self) -> None:
        """Ends it at once, if that is possible."""
        raise NotImplementedError

    def describe(self, code: int) -> str:
        """Says how it has ended that had been ready, given its return code."""
        return "has ended"


class WorkerProcess(OwnWorker):
    """A worker process that has been started.

    Args:
        launcher: says how.
        slot: the place among the workers of its group.
        environment: variables for the worker, besides those of this process.

    Raises:
        ConfigurationError: the system has no way to hand a lifeline to a child, or lacks the
            program that is to start it.
    """

    def __init__(
        self, launcher: Launcher, slot: int, environment: Mapping[str, str] | None = None
    ) -> None:
        if sys.platform == "win32":
            raise ConfigurationError(
                "a pool cannot start worker processes on Windows yet: use transport='memory', or "
                "discovery=… to call workers that run elsewhere"
            )
        super().__init__()
        self._launcher, self._slot = launcher, slot
        self._said, self._begun = b"", False  # the last of what it wrote to standard error
        elsewhere = launcher.elsewhere
        variables = dict(environment or {})
        command = launcher.command(slot, ["-c", _BOOT, "1" if elsewhere else "0"])
        self._lifeline, theirs = socket.socketpair()
        _LIFELINES.add(self._lifeline)
        try:
            with _interrupts_held():
                self._popen = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno() if elsewhere else None,
                    stderr=subprocess.PIPE if elsewhere else None,
                    env={k: v for k, v in (os.environ | variables).items() if k != TOKEN},
                )
        except FileNotFoundError as error:
            self._lifeline.close()
            raise ConfigurationError(
                f"there is no program {command[0]!r} here, by which workers are to be started: "
                "install it, or choose another launcher"
            ) from error
        except BaseException:
            self._lifeline.close()
            raise
        finally:
            theirs.close()
        own = [entry for entry in sys.path if isinstance(entry, str)]  # pyright: ignore[reportUnnecessaryIsInstance]
        # Where a command passes no environment on, variables are set as early as possible.
        variables = variables if elsewhere else {}
        self._send(([] if elsewhere else own, sys.version_info[:2], variables))
        if self._popen.stderr is not None:
            os.set_blocking(self._popen.stderr.fileno(), False)
            asyncio.get_running_loop().add_reader(self._popen.stderr, self._on_said)
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
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
            try:
                more = await loop.sock_recv(self._lifeline, 65536)
            except OSError:
                more = b""
            if not more:
                return {"error": self._failure(await self.wait())}
            data += more
        self._begun = True
        self._show(self._said)
        return marshal.loads(data[4:])

    async def stop(self, grace: float) -> None:
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
        """Kills the worker; a command that has it elsewhere is asked to."""
        with contextlib.suppress(OSError):
            (self._popen.terminate if self._launcher.elsewhere else self._popen.kill)()

    @property
    def waiting(self) -> str:
        return "" if self._begun else self._launcher.explain(self._slot, None, self._text)

    def describe(self, code: int) -> str:
        return self._launcher.explain_loss(self._slot, code, self._text) or describe_exit(code)

    def _failure(self, code: int) -> str:
        said = self._launcher.explain(self._slot, code, self._text)
        return f"the last one {describe_exit(code)}{said and f': {said}'}"

    @property
    def _text(self) -> str:
        return self._said.decode(errors="replace").strip()

    def _on_said(self) -> None:
        """Something was written to standard error elsewhere.

        It is shown, unless it comes so early that it may be the reason for a failure.
        """
        assert self._popen.stderr is not None
        data = self._popen.stderr.read()  # None: nothing, for now
        if data:
            self._said = (self._said + data)[-MOST_SAID:]
        elif data == b"":
            asyncio.get_running_loop().remove_reader(self._popen.stderr)
        if self._begun and data:
            self._show(data)

    def _show(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(2, data)

    def _on_exit(self) -> None:
        code = self._popen.wait()
        if self._launcher.elsewhere and 128 < code < 255:
            code = 128 - code  # a shell has told which signal it was
        if self._popen.stderr is not None:
            self._on_said()
            asyncio.get_running_loop().remove_reader(self._popen.stderr)
            self._popen.stderr.close()
        if not self.exited.done():
            self.exited.set_result(code)
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
    if code == OVER_LIMIT:
        return "has ended, for it used more memory than memory_limit allows"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
