"""The conformance kit of launchers, run over ours."""

from __future__ import annotations

from collections.abc import Sequence

from wool._launchers.local import LocalLauncher
from wool.abc import Launcher
from wool.testing import LauncherSuite


class Exhausted(LocalLauncher):
    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["sh", "-c", "exit 3"]

    def explain(self, slot: int, code: int | None, said: str) -> str:
        return "no room"


class TestLocal(LauncherSuite):
    def launcher(self) -> Launcher:
        return LocalLauncher()

    def broken(self) -> tuple[Launcher, str]:
        return Exhausted(), "the last one exited with code 3: no room"
