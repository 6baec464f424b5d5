"""Processes: which there are, what is left of them, and scripts that die."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from support.waiting import until_sync

MARK = "TEST_MARK_OF_WOOL"


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def every_pid() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(parent: int) -> set[int]:
    """Living children of a process."""
    found = set()
    for pid in every_pid():
        with suppress(OSError):
            state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state not in "ZX":
                found.add(pid)
    return found


def marked(mark: str) -> set[int]:
    """Living processes that were started with `mark` in their environment, at any depth."""
    needle = f"{MARK}={mark}".encode()
    found = set()
    for pid in every_pid():
        with suppress(OSError):
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and alive(pid):
                found.add(pid)
    return found


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def rss(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shared_memory() -> set[str]:
    """What is in shared memory, but for what tests that run beside this one may put there."""
    path = Path("/dev/shm")
    # A discovery's folder, which has its own tests; a browser; semaphores, of multiprocessing.
    others = ("wool-", ".org.chromium.", "sem.")
    names = os.listdir(path) if path.is_dir() else ()
    return {name for name in names if not name.startswith(others)}


class Script:
    """A caller in a process of its own, with a temporary folder of its own to look into.

    `how` it is started: `file`, `stdin`, `-c`, or `-m`. It leads its own process group, as a job
    started from a terminal does. Every process it starts can be found by its `mark`.
    """

    def __init__(
        self,
        code: str,
        folder: Path,
        *args: str,
        how: str = "file",
        flags: Iterable[str] = (),
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.temp = folder / "t"
        self.runtime = folder / "r"
        self.errors = folder / "stderr"
        for path in (self.temp, self.runtime):
            path.mkdir(mode=0o700, exist_ok=True)
        self.shm = shared_memory()
        home = folder / "home"
        home.mkdir(exist_ok=True)
        (home / "script.py").write_text(code)
        start = {
            "file": [str(home / "script.py")],
            "stdin": ["-"],
            "-c": ["-c", code],
            "-m": ["-m", "script"],
        }[how]
        if how == "stdin":
            assert stdin is None
            stdin = code
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temp),
            "XDG_RUNTIME_DIR": str(self.runtime),
            MARK: self.mark,
            **(env or {}),
        }
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *flags, *start, *args],
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=home,
                start_new_session=True,
                env=self.environment,
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if stdin is not None:
            assert self.process.stdin is not None
            with suppress(BrokenPipeError):
                self.process.stdin.write(stdin)
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, timeout: float = 30) -> str:
        """The next line that it prints."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            line = None
        if line is None:
            raise AssertionError(f"no line was printed; standard error:\n{self.stderr}")
        return line

    def finish(self, timeout: float = 30) -> int:
        """Waits for its end; the exit status, negative for a signal."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.stderr}") from None

    def output(self, timeout: float = 30) -> str:
        """Waits for its end, which must be a success, and returns what it printed."""
        status = self.finish(timeout)
        assert status == 0, f"exit status {status}; standard error:\n{self.stderr}"
        self._reader.join(10)
        assert not self._reader.is_alive(), "something still holds standard output open"
        lines = []
        while (line := self._lines.get()) is not None:
            lines.append(line)
        return "\n".join(lines)

    @property
    def stderr(self) -> str:
        return self.errors.read_text(errors="replace")

    def survivors(self) -> set[int]:
        """Living processes of this script, itself included."""
        return marked(self.mark)

    def leftovers(self) -> list[str]:
        """What it left in the temporary folder, the runtime folder and in shared memory."""
        found = [str(p) for root in (self.temp, self.runtime) for p in root.rglob("*")]
        return found + [f"/dev/shm/{name}" for name in shared_memory() - self.shm]

    def close(self) -> None:
        """Ends whatever is left of it."""
        kill(self.survivors())
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def gone(script: Script, *, within: float, except_for: Iterable[int] = ()) -> None:
    """Checks that nothing is left of a script: no process, no file."""
    kept = set(except_for)
    until_sync(
        lambda: script.survivors() <= kept, within=within, what="the workers' processes to be gone"
    )
    with suppress(AssertionError):  # this one says what there is
        until_sync(lambda: not script.leftovers(), within=20)
    assert script.leftovers() == []
