"""Launchers with one defect each, made of the local one: the conformance kit finds them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from wool._launchers.local import LocalLauncher
from wool.abc import Launcher
from wool.testing import LauncherSuite


class Broken(LauncherSuite):
    """The launcher, with a shell script that starts the interpreter, given as its arguments.

    Attributes:
        caught_by: tests that must fail.
    """

    patience = 10.0
    caught_by: tuple[str, ...] = ()
    script = 'exec "$0" "$@"'

    def launcher(self) -> Launcher:
        return Scripted(self.script)

    def broken(self) -> tuple[Launcher, str]:
        return Scripted("exit 3"), "exited with code 3"


class Scripted(LocalLauncher):
    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return ["sh", "-c", self._script, *super().command(slot, arguments)]


class TestSound(Broken):
    """The sound one, of which the broken ones are made."""


class TestKeepsStandardInputOpen(Broken):
    caught_by = ("test_a_caller_that_is_killed_leaves_nothing",)
    script = '(cat; sleep 15) | "$0" "$@"'


class TestShowsTheToken(Broken):
    caught_by = ("test_secrets_are_not_shown",)

    def launcher(self) -> Launcher:
        return Scripted(f'"$0" "$@"; exit $? # {os.environ.get("WOOL_TOKEN")}')


class TestSaysThatAllIsWell(Broken):
    caught_by = ("test_how_a_worker_ends_is_told",)
    script = '"$0" "$@"; exit 0'


class TestStartsOthers(Broken):
    caught_by = ("test_workers_are_started",)
    script = 'exec "$0" -c "import sys; sys.exit(3)"'


class TestGivesNoReason(Broken):
    caught_by = ("test_a_failure_has_a_reason",)

    def broken(self) -> tuple[Launcher, str]:
        return Scripted("exit 3"), "there is no room"
