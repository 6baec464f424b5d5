"""The launcher `ssh`: processes of other machines, through the user's own `ssh`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from wool.abc import Launcher
from wool.plugins import API, LauncherPlugin, hookimpl

OPTIONS = ("-T", "-oBatchMode=yes", "-oConnectTimeout=15", "-oServerAliveInterval=15")
"""Nobody is asked for a password, and a machine that is gone is noticed. The user's own precede
them, and so count first."""

MISSING = (126, 127)
"""Exit codes of a shell that cannot run a program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of the launcher."""

    hosts: Annotated[
        tuple[str, ...], "Where to log in, each perhaps with a number of workers, as `beta:4`."
    ]
    python: Annotated[str, "The interpreter there; unset: the path of this one."] = ""
    command: Annotated[tuple[str, ...], "The client, perhaps with arguments."] = ("ssh",)

    def __post_init__(self) -> None:
        """Checks what can be checked here."""
        if not self.hosts or not self.command:
            raise ValueError("there must be a host and a client")
        for host in self.hosts:
            _parse(host)


def _parse(host: str) -> tuple[str, int]:
    """Returns a destination for `ssh` and how many workers it takes."""
    name, separator, number = host.rpartition(":")
    if not separator or ":" in name:  # an IPv6 address has several
        name, number = host, "1"
    if not name or name.startswith("-") or not number.isdecimal() or int(number) < 1:
        raise ValueError(f"{host!r} is no host with a number of workers, such as beta:4")
    return name, int(number)


class SshLauncher(Launcher):
    """Starts workers on hosts in turn, each with as many as it takes."""

    elsewhere = True

    def __init__(self, options: Options) -> None:
        hosts = [_parse(host) for host in options.hosts]
        turns = range(max(number for _, number in hosts))
        self._places = [name for turn in turns for name, number in hosts if turn < number]
        self._python = options.python or sys.executable
        self._client = options.command
        self.slots = len(self._places)

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        # A shell of its own tells of a signal by the exit code, which SSH itself does not.
        program = ["sh", "-c", '"$@"; exit $?', "wool", self._python, *arguments]
        return [*self._client, *OPTIONS, "--", self._places[slot], shlex.join(program)]

    def explain(self, slot: int, code: int | None, said: str) -> str:
        host = self._places[slot]
        if code in MISSING:
            return (
                f"{host} has no program {self._python}: name its Python by `python` in "
                "[tool.wool.ssh] or WOOL_SSH__PYTHON"
            )
        if said:
            return f"{host} says: {said}"
        return f"{host} has not answered yet" if code is None else f"on {host}"


def make(options: Options) -> Launcher:
    return SshLauncher(options)


@hookimpl
def wool_launchers() -> Iterable[LauncherPlugin]:
    yield LauncherPlugin(name="ssh", api=API, options=Options, factory=make)
