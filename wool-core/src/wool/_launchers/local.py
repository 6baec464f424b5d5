"""The launcher `local`, the default one: processes of this machine, as this one is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from wool.abc import Launcher
from wool.plugins import API, LauncherPlugin, hookimpl


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of the launcher."""

    nice: Annotated[int, "How much lower the priority of workers is than that of the program."] = 0
    cpu_affinity: Annotated[tuple[int, ...], "The CPUs that workers may use; unset: all."] = ()

    def __post_init__(self) -> None:
        if absent := _absent(self.cpu_affinity):
            raise ValueError(f"there is no CPU {absent[0]} that workers could use here")


def _absent(cpus: Iterable[int]) -> list[int]:
    """Returns those of some CPUs that this program may not use, or that are not there."""
    absent: list[int] = []

    def try_each() -> None:
        for cpu in cpus:
            try:
                os.sched_setaffinity(0, {cpu})
            except (OSError, ValueError, OverflowError):
                absent.append(cpu)

    if cpus and hasattr(os, "sched_setaffinity"):
        thread = threading.Thread(target=try_each)  # the affinity is its own, and ends with it
        thread.start()
        thread.join()
    return absent


class LocalLauncher(Launcher):
    """Starts the same interpreter with the same flags."""

    def __init__(self, options: Options = Options()) -> None:
        # Both replace themselves by what they start.
        self._before = ["nice", "-n", str(options.nice)] if options.nice else []
        if options.cpu_affinity:
            self._before += ["taskset", "-c", ",".join(map(str, options.cpu_affinity))]

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        flags: list[str] = cast(Any, subprocess)._args_from_interpreter_flags()
        return [*self._before, sys.executable, *flags, *arguments]


def make(options: Options) -> Launcher:
    return LocalLauncher(options)


@hookimpl
def wool_launchers() -> Iterable[LauncherPlugin]:
    yield LauncherPlugin(name="local", api=API, options=Options, factory=make)
