"""Limits of this machine: clock, shared memory, open files, sockets, processes."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wool._security import sockets
from wool.abc import ConnectFailed
from wool.cli.checks.finding import Finding, advice, ok, problem

SHARED = Path("/dev/shm")
ROOM = 16 * 2**20
"""Bytes of shared memory that 4,000 workers do with, at a page for each."""

FILES = 1024
"""Open files that a worker with many callers may well need."""

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
FEW_INSTANCES = 64

WHO = "`ss -ltnp` names it"
"""How to find out who listens at a port."""

_UNSYNCHRONIZED = 0x40
_TIME_ERROR = 5


def check_machine() -> Iterator[Finding]:
    """Looks at what the machine sets limits to."""
    yield from check_sockets()
    yield from check_files()


def check_clock(*, needed: bool) -> Finding:
    """Looks at whether the clock is kept right.

    Args:
        needed: whether anything depends on it: certificates of one's own do, tokens do not.
    """
    now = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC"
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.iterdir())
    if time.time() < newest - 86400:
        return problem(
            "clock",
            f"it says {now}, which is before these files were installed",
            "set it, and have it kept right (systemd-timesyncd, chrony)",
        )
    kept = _synchronized()
    if kept is None:
        return ok("clock", now)
    if kept:
        return ok("clock", f"{now}, kept right by the system")
    if not needed:
        return ok("clock", f"{now}; the system does not keep it right, which a token does not need")
    return advice(
        "clock",
        f"{now}; the system does not keep it right, and certificates have dates",
        "have it kept right (systemd-timesyncd, chrony)",
    )


def _synchronized() -> bool | None:
    """Whether the kernel's clock is synchronized; None if that cannot be told."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        buffer = ctypes.create_string_buffer(256)  # struct timex, of which nothing is to be set
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (ImportError, OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    return state != _TIME_ERROR and not status & _UNSYNCHRONIZED


def check_port(port: int) -> Finding:
    """Looks at whether a worker could listen at a TCP port, on all interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        if os.name == "posix":  # elsewhere the option means something else
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError as error:
            return advice(
                "port",
                f"no worker could listen at TCP port {port}: {os.strerror(error.errno or 0)}",
                f"give them another one, or end the program that has it: {WHO}",
            )
    return ok("port", f"a worker could listen at TCP port {port}")


def check_sockets() -> Iterator[Finding]:
    """Looks at the place where pools of this machine have their Unix sockets."""
    if not sockets.SUPPORTED:
        yield ok("sockets", "this system has no Unix sockets; pools use the loopback interface")
        return
    place = sockets.place()
    try:
        folder = Path(tempfile.mkdtemp(prefix="wool-doctor-", dir=place))
    except OSError as error:
        yield problem(
            "sockets",
            f"pools cannot make directories in {place}: {error.strerror}",
            "name a directory that can be written to in TMPDIR",
        )
        return
    try:
        sockets.check(str(folder))
        yield ok("sockets", f"pools have theirs in {place}")
    except ConnectFailed as error:
        yield problem("sockets", str(error), "name a private directory in TMPDIR")
    finally:
        folder.rmdir()


def check_files() -> Iterator[Finding]:
    """Looks at how many files a process may have open: each connection is one."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        yield ok("open files", f"up to {'any number' if soft < 0 else soft} in a process")
    else:
        yield advice(
            "open files",
            f"up to {soft} in a process, and each connection is one",
            f"ulimit -n {FILES} (the most allowed is {hard}), or LimitNOFILE= in a systemd unit",
        )


def _is_writable(place: Path) -> bool:
    return os.access(place, os.W_OK | os.X_OK)


def check_shared_memory(directory: Path | None = None) -> Iterator[Finding]:
    """Looks at what the discovery `shm` needs of the machine.

    Args:
        directory: where its processes meet, if the settings say.
    """
    denied = directory is None and SHARED.is_dir() and not _is_writable(SHARED)
    shared = SHARED if SHARED.is_dir() and not denied else Path(tempfile.gettempdir())
    place = directory or shared
    remedy = "mount a tmpfs there with mode 1777, or name another place in WOOL_SHM__DIRECTORY"
    if not _is_writable(place):
        yield problem("shared memory", f"{place} cannot be written to", remedy)
        return
    if denied:
        text = f"{SHARED} cannot be written to, so processes meet in {place}"
        yield advice("shared memory", text, remedy)
    free = shutil.disk_usage(place).free
    room = f"{free / 2**20:,.0f} MiB free in {place}"
    if free < ROOM:
        yield advice(
            "shared memory",
            room,
            "remove what is in it, or make it larger (`docker run --shm-size`, mount -o "
            "remount,size=)",
        )
    else:
        yield ok("shared memory", room)
    if INSTANCES.exists():
        most = int(INSTANCES.read_text())
        if most < FEW_INSTANCES:
            yield advice(
                "shared memory",
                f"a user may have {most} instances of inotify, and each pool that watches takes "
                "one; without, it looks four times a second",
                "sysctl fs.inotify.max_user_instances=512",
            )
        else:
            yield ok("shared memory", f"{most} instances of inotify for each user")
