"""Runs a conformance kit on back-ends with one defect each."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parent.parent.parent
END = "end of "


class Run:
    """Runs, in another process, the tests that are to fail.

    Args:
        module: has suites with `caught_by`, names of tests that must fail, or whose end must:
            `"end of test_…"`.
        folder: for what is reported.
        everything: run the other tests of these suites as well.
    """

    def __init__(self, module: str, folder: Path, *, everything: bool = False) -> None:
        names = vars(importlib.import_module(module))
        self.suites = [suite for suite in names.values() if getattr(suite, "caught_by", ())]
        self.expected = [
            (suite.__name__, test) for suite in self.suites for test in suite.caught_by
        ]
        name = module.rpartition(".")[2]
        self.report, self.log = folder / f"{name}.xml", folder / f"{name}.log"
        file = ROOT / "tests" / (module.replace(".", "/") + ".py")
        tests = [f"{file}::{suite}::{test.removeprefix(END)}" for suite, test in self.expected]
        if everything:
            tests = [f"{file}::{suite.__name__}" for suite in self.suites]
        options = ["--tb=native", f"--junitxml={self.report}", f"--basetemp={folder / name}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *tests],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                # There, pytest shows the whole of what differs, however large.
                env={**os.environ, "CI": "true"},
            )

    def failed(self) -> Iterator[tuple[str, str]]:
        """Waits; then yields suite and test of what has failed, with parameters and without."""
        status = self.process.wait()
        # Of 0 and 1, pytest says that it ran all tests to their end: otherwise nothing was shown.
        assert status in {0, 1}, f"pytest ended with {status}:\n{self.log.read_text()}"
        for case in ET.parse(self.report).iter("testcase"):
            suite, name = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
            for test in dict.fromkeys((name, name.partition("[")[0])):
                if case.find("failure") is not None:
                    yield suite, test
                error = case.find("error")
                if error is not None and "failed on teardown" in error.attrib["message"]:
                    yield suite, END + test

    def missed(self) -> list[tuple[str, str]]:
        """Waits; then returns what should have failed and has not."""
        failed = set(self.failed())
        print(self.log.read_text())  # for whoever has to find out why one was not caught
        return sorted(set(self.expected) - failed)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def running(
    request: pytest.FixtureRequest, folder: Path, modules: Iterable[str]
) -> Iterator[dict[str, Run]]:
    """All at once, and while other tests of the file run: they wait most of the time.

    Yields the runs by the last word of their modules; none if no test that looks is selected.
    """
    looks = any(
        item.name.startswith("test_broken_")
        for item in request.session.items
        if item.path == request.path
    )
    runs = {module.rpartition("_")[2]: Run(module, folder) for module in modules if looks}
    yield runs
    for run in runs.values():
        run.stop()
