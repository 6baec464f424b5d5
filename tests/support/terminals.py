"""Programs at a terminal, which the test reads and types at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence

import pytest


class Terminal:
    """A terminal with a program in its foreground, in a session of its own."""

    def __init__(self, command: Sequence[str], **variables: str) -> None:
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **variables},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    @property
    def interrupts(self) -> bool:
        """Whether Ctrl-C at the terminal is a signal."""
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ISIG)

    def until(self, pattern: str) -> re.Match[str]:
        """Reads until the terminal shows something; forgets what came before."""
        end = time.monotonic() + 30
        while (found := re.search(pattern, self.shown)) is None:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.terminal], [], [], left)[0], self.shown
            try:
                self.shown += os.read(self.terminal, 65536).decode()
            except OSError:
                pytest.fail(f"it has ended: {self.shown}")
        self.shown = self.shown[found.end() :]
        return found

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def close(self) -> None:
        """Kills what is left of the session, and closes the terminal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Closes the terminal."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1
