"""Runs a program without what only POSIX has, as far as that can be taken away from it."""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import importlib.abc
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

_ABSENT = {
    os: (
        "O_ASYNC O_NOFOLLOW eventfd fork geteuid getuid memfd_create pidfd_open register_at_fork "
        "sched_getaffinity"
    ),
    signal: "SIGALRM SIGCONT SIGHUP SIGKILL SIGSTKFLT SIGSTOP setitimer",
    socket: "AF_UNIX SCM_RIGHTS SO_PEERCRED",
}
_MODULES = {"fcntl", "grp", "pwd", "termios", "uvloop"}
_IN_USE = (asyncio, concurrent.futures.process, multiprocessing, subprocess)
"""Of the standard library, what would be another implementation where these are absent."""


class _Absent(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname in _MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def main() -> None:
    """Takes it away, then runs the program that the command line names."""
    pair, family = socket.socketpair, socket.AF_UNIX
    socket.socketpair = lambda *_: pair(family)  # type: ignore[assignment]
    for module, names in _ABSENT.items():
        for name in names.split():
            delattr(module, name)
    for name in _MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent())
    runpy.run_path(sys.argv[1], run_name="__main__")


if __name__ == "__main__":
    main()
