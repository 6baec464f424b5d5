"""`wool debug`: pdb of this terminal, in a process that was not prepared for it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Generator, Iterable, Mapping
from importlib import import_module
from pathlib import Path

import click

from wool._client.identity import VERSION
from wool._protocol.status import ProcessStatus
from wool._security import sockets
from wool._transports.sockets import peer_uid
from wool._worker.attaching import ASK, INTERRUPT, LEAVE, REFUSE
from wool.cli.common import Files, Where, timeout_option
from wool.cli.group import Failure
from wool.cli.ps import Question, question_of, sort

SCRIPT = """\
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
try:
    client.connect({address!r})
except OSError:  # the command was killed
    client.close()
    os.unlink({script!r})
else:
    try:
        from wool._client.identity import VERSION
        assert VERSION == {version!r}, 'it has version ' + VERSION
        from wool._worker.attaching import attach
    except Exception as error:
        client.sendall(({unfit!r} % error).encode())
        client.close()
    else:
        attach(client, {call!r}, sys._getframe().f_back)
"""
"""What the process runs, on its main thread and in a namespace of its own."""

NUDGE = 0.5
"""Seconds after which a worker of a pool that waits in the operating system gets a signal."""


@click.command("debug")
@click.argument("target", metavar="PID|CALL")
@timeout_option("For the process to run Python code, where it can be stopped.")
def debug(target: str, timeout: float) -> None:
    """Attach pdb to a running process, at this terminal.

    PID is the number of a worker process, or of a program, of this user on this machine: it is
    stopped where its main thread stands, and followed from there. CALL is the id of a call, as
    `wool ps` prints it: its frames are shown, also while it waits, and it alone is followed. The
    process needs no preparation. It has to run the same Python as this command, 3.14 or newer.

    `c` lets it go on to the next breakpoint; if there is none, and with `q`, Ctrl-D or the end of
    this command, it goes on as if nothing had been. Ctrl-C at the prompt ends the line, and
    leaves while the process runs.
    """
    if not hasattr(sys, "remote_exec"):
        raise Failure(
            "wool debug needs Python 3.14 or newer, here and in the process; here is Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}"
        )
    pid, connection = asyncio.run(_attach(target, timeout))
    with contextlib.suppress(OSError, KeyboardInterrupt), connection:  # either one leaves
        _converse(connection)
    click.echo(f"process {pid} {'runs on' if _is_alive(pid) else 'has ended'}")


async def _attach(target: str, timeout: float) -> tuple[int, socket.socket]:
    """Has a process connect to this one; returns its number and the connection."""
    none = Where(None, None, ()), Files(None, None, None, None)
    async with question_of(*none, timeout) as ask:
        processes, silent = sort(await ask(""), [])
        is_pid = target.isdecimal()
        pid = int(target) if is_pid else _pid_of_call(target, processes, silent)
        _check(pid, {process.pid: process.python for process in processes if _is_here(process)})
        with _meeting_place() as (listener, script):
            script.write_text(
                SCRIPT.format(
                    address=listener.getsockname(),
                    version=VERSION,
                    unfit=f"{REFUSE}process {pid} cannot import wool-core {VERSION}: %s",
                    call="" if is_pid else target,
                    script=str(script),
                ),
                encoding="utf-8",
            )
            if not _is_visible(script, pid):
                raise Failure(f"process {pid} is in a container: run wool debug in there")
            _execute(pid, script)
            try:
                blocked = any(p.pid == pid and p.blocked for p in processes if _is_here(p))
                return pid, await _connected(listener, pid, ask, timeout, blocked=blocked)
            except BaseException:
                with contextlib.suppress(Failure):
                    _execute(pid, Path(os.devnull))  # in place of what it has not run
                raise


def _is_here(process: ProcessStatus) -> bool:
    return process.host == socket.gethostname()


def _pid_of_call(call: str, processes: Iterable[ProcessStatus], silent: Mapping[str, str]) -> int:
    """Returns the number of the process that serves a call."""
    for process in processes:
        if any(served.id == call for served in process.serves):
            if not _is_here(process):
                raise Failure(f"{call} runs on {process.host}: run wool debug there")
            return process.pid
    mute = f"; {', '.join(silent)} has not answered" if silent else ""
    raise Failure(
        f"no worker of this user on this machine has the call {call}{mute}: wool ps shows which "
        "there are; one that runs elsewhere is debugged there"
    )


def _check(pid: int, pythons: Mapping[int, str]) -> None:
    """Raises Failure if a process cannot be debugged from here, as far as that can be known."""
    if not _is_alive(pid):
        raise Failure(f"there is no process {pid}")
    with contextlib.suppress(OSError):
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            raise Failure(f"process {pid} is another user's")
    here, there = sys.version_info[:2], pythons.get(pid)
    if there is not None and there.split(".")[:2] != [str(part) for part in here]:
        raise Failure(
            f"process {pid} runs Python {there}, and this command {here[0]}.{here[1]}: run wool "
            "debug with the Python of the process, which has to be 3.14 or newer"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0


@contextlib.contextmanager
def _meeting_place() -> Generator[tuple[socket.socket, Path]]:
    """Makes a socket to be met at, and names a file beside it; only this user can get there."""
    directory = sockets.new_directory()
    script = Path(directory, "script.py")
    lock = sockets.enter(directory)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(sockets.socket_in(directory))
            os.chmod(listener.getsockname(), 0o600)
            listener.listen()
            listener.setblocking(False)
            yield listener, script
    finally:
        script.unlink(missing_ok=True)
        sockets.discard(directory)
        os.close(lock)


def _is_visible(script: Path, pid: int) -> bool:
    """Whether a process finds a file under the same name; True where that cannot be known."""
    root = Path(f"/proc/{pid}/root")
    return not root.exists() or (root / script.relative_to("/")).exists()


def _execute(pid: int, script: Path) -> None:
    try:
        sys.remote_exec(pid, script)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    except (OSError, RuntimeError) as error:
        raise Failure(
            f"process {pid} cannot be debugged ({error}): it has to run Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} as this command, both without "
            "PYTHON_DISABLE_REMOTE_DEBUG, and the system must allow ptrace"
        ) from error


async def _connected(
    listener: socket.socket, pid: int, ask: Question, timeout: float, *, blocked: bool
) -> socket.socket:
    """Waits until the script has run.

    Args:
        blocked: whether the main thread waits for something, without the interpreter's lock.
    """
    loop = asyncio.get_running_loop()
    waking = asyncio.ensure_future(ask(""))  # a loop with nothing to do turns once for that
    nudging = loop.call_later(NUDGE, _nudge, pid) if blocked else None
    try:
        async with asyncio.timeout(timeout):
            connection, _ = await loop.sock_accept(listener)
    except TimeoutError:
        if not _is_alive(pid):
            raise Failure(f"process {pid} has ended") from None
        raise Failure(
            f"the main thread of process {pid} has run no Python code for {timeout:g} s: it waits "
            "in C code, or some C code keeps the interpreter's lock. Nothing was changed there"
        ) from None
    finally:
        if nudging is not None:
            nudging.cancel()
        waking.cancel()
        await asyncio.wait([waking])
    if peer_uid(connection) != os.geteuid():
        connection.close()
        raise Failure("another user has connected")
    connection.setblocking(True)
    return connection


def _nudge(pid: int) -> None:
    """Has a worker of a pool come out of a system call for a moment, as Ctrl-C at its terminal.

    It ignores that signal, but in Python code. Other processes are let be.
    """
    with contextlib.suppress(OSError):
        if b"wool._worker.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGINT)


def _converse(connection: socket.socket) -> None:
    """Shows what comes, and sends lines when it is asked for them."""
    with contextlib.suppress(ImportError):
        import_module("readline")  # by which `input` edits lines
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    kept = ""  # of the last line, which may become a prompt
    while data := connection.recv(1 << 16):
        text, asked, after = (kept + decoder.decode(data)).partition(ASK)
        if text.startswith(REFUSE):
            raise Failure(text.removeprefix(REFUSE))
        lines, end, kept = text.rpartition("\n")
        click.echo(lines + end, nl=False)
        if asked:
            connection.sendall(_answer(kept).encode(errors="replace"))
            kept = after
    click.echo(kept, nl=False)


def _answer(prompt: str) -> str:
    """Returns what the user types, as a line."""
    try:
        return input(prompt) + "\n"
    except KeyboardInterrupt:
        click.echo()
        return INTERRUPT + "\n"
    except EOFError:
        click.echo()
        return LEAVE + "\n"
