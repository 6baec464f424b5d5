"""Follows a page as a reader would: saves its files, types its commands, compares what is printed.

A `python` block whose fence names a file is saved under that name. In a `console` block a line with
a prompt is typed, `$` on this machine and `beta$` on the one called so; the lines below are what it
prints, in which `…` stands for anything. In a command it stands for what has been printed before:
`grpc://…` for the last such address, `WOOL_TOKEN=…` for the last token.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(\w*)\$ (.*)$")
SERVES = re.compile(r"\bwool worker\b")
"""A command that goes on until it is stopped."""

PATIENCE = 40.0
DONE = "walked with exit code"


@dataclass
class File:
    """Something to save."""

    name: str
    text: str


@dataclass
class Command:
    """Something to type on a machine, and what it should print."""

    machine: str
    text: str
    expected: list[str] = field(default_factory=list[str])


def steps(page: Path) -> Iterator[File | Command]:
    """Yields what a page asks its reader to do."""
    for language, name, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" and name:
            yield File(name, body)
        elif language == "console":
            yield from commands(body)


def commands(body: str) -> Iterator[Command]:
    """Yields the commands of a console block."""
    command: Command | None = None
    for line in body.splitlines():
        prompt = PROMPT.match(line)
        if prompt is None:
            assert command is not None, f"output before a command: {line}"
            command.expected.append(line)
            continue
        if command is not None:
            yield command
        command = Command(*prompt.groups())
    if command is not None:
        yield command


class Shell:
    """A terminal on one machine."""

    def __init__(self, folder: Path, variables: Mapping[str, str], prefix: Sequence[str] = ()):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [*prefix, "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())

    def type(self, command: Command, patience: float = PATIENCE) -> list[str]:
        """Types a command, and waits until it has ended, or has printed what it should.

        Raises:
            AssertionError: it has failed, or printed something else.
        """
        assert self._process.stdin is not None
        begin = len(self._lines)
        self._process.stdin.write(f"{command.text}\necho {DONE} $?\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self._process.poll() is None:
            lines = self._lines[begin:]
            if lines and lines[-1].startswith(DONE):
                printed = lines[:-1]
                assert lines[-1] == f"{DONE} 0", f"{command.text} failed:\n" + "\n".join(printed)
                assert matches(command.expected, printed), self._report(command, printed)
                return printed
            if (
                SERVES.search(command.text)
                and command.expected
                and matches(command.expected, lines)
            ):
                return lines  # it serves until it is stopped
            time.sleep(0.02)
        raise AssertionError(self._report(command, self._lines[begin:]))

    def _report(self, command: Command, printed: list[str]) -> str:
        return "\n".join(
            [command.text, "should print:", *command.expected, "and has printed:", *printed]
        )

    def close(self) -> None:
        """Ends what runs in it."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def matches(expected: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines are those expected, in which `…` is anything."""
    pattern = ".*".join(map(re.escape, "\n".join(expected).split("…")))
    return re.fullmatch(pattern, "\n".join(printed), re.DOTALL) is not None


class Walk:
    """A reader who follows a page, and remembers what was printed."""

    def __init__(self) -> None:
        self.shells: dict[str, Shell] = {}
        self._seen: list[str] = []
        self._token = ""

    def follow(self, step: File | Command, patience: float = PATIENCE) -> None:
        """Does what a step says."""
        if isinstance(step, File):
            (self.shells[""].folder / step.name).write_text(step.text, encoding="utf-8")
            return
        typed = Command(step.machine, self._filled(step.text), step.expected)
        printed = self.shells[step.machine].type(typed, patience)
        self._seen.extend(printed)
        if step.text == "wool token":
            [self._token] = printed

    def _filled(self, text: str) -> str:
        if not text.endswith("…"):
            return text
        before, _, head = text.removesuffix("…").rpartition("=")
        value = self._token if not head else self._last(head)
        return f"{before}={value}"

    def _last(self, head: str) -> str:
        found = re.findall(rf"{re.escape(head)}[^\s,]+", "\n".join(self._seen))
        assert found, f"nothing printed begins with {head}"
        return found[-1]

    def close(self) -> None:
        """Ends what runs."""
        for shell in self.shells.values():
            shell.close()
