"""Prints what the conformance kits say of sound back-ends, and of those with one defect each.

    python tests/unit/show_kits.py [--everything] [transports | discoveries | serializers] …

With `--everything`, all checks are run on broken back-ends, not only those that are about their
defects.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from unit.brokenkit import END, Run  # noqa: E402

SOUND = {
    "transports": ("test_transport_kit", ("TestUnix", "TestMemory")),
    "discoveries": ("test_discovery_kit", ("TestShm", "TestZeroconf", "TestStatic", "TestDns")),
    "serializers": ("test_serializer_kit", ("TestCloudpickle", "TestDill")),
}
BROKEN = {
    "transports": ("messages", "flow", "places", "security"),
    "discoveries": ("watching", "announcing", "addresses"),
    "serializers": ("values", "buffers"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*SOUND, []])
    parser.add_argument("--everything", action="store_true")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds or SOUND:
            print(f"\n{kind}: sound\n")
            show_sound(kind, Path(folder))
            for part in BROKEN[kind]:
                print(f"\n{kind}: broken, {part}\n")
                missed += show_broken(f"unit.{kind}.broken_{part}", folder, options.everything)
    print(f"\n{missed} broken back-ends were not caught" if missed else "\nAll were caught.")
    sys.exit(bool(missed))


def show_sound(kind: str, folder: Path) -> None:
    module, suites = SOUND[kind]
    report = folder / f"{kind}.xml"
    tests = [f"tests/unit/{module}.py::{suite}" for suite in suites]
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    for suite in suites:
        cases = [case for name, _, case in cases_of(report) if name == suite]
        failed = [case for case in cases if case is not None]
        verdict = f"fails {failed}" if failed else f"passes {len(cases)} checks"
        print(f"  {suite.removeprefix('Test'):34}{verdict}")


def show_broken(module: str, folder: str, everything: bool) -> int:
    run = Run(module, Path(folder), everything=everything)
    run.process.wait()
    failures: dict[str, dict[str, str]] = {}
    for suite, test, message in cases_of(run.report):
        if message is not None:
            failures.setdefault(suite, {})[test] = message
    missed = 0
    for suite in run.suites:
        told = failures.get(suite.__name__, {})
        shown = {test: told[found] for test in suite.caught_by if (found := match(test, told))}
        missed += len(shown) < len(suite.caught_by)
        others = len(told) - len(shown)
        more = f"   (and {others} others)" if others > 0 else ""
        print(f"  {suite.__name__.removeprefix('Test')}{more}")
        for test in suite.caught_by:
            print(f"      {test}")
            message = shown.get(test, "NOT CAUGHT")
            print(textwrap.indent(textwrap.shorten(message, 150), " " * 10))
    return missed


def match(test: str, told: dict[str, str]) -> str | None:
    """The failure that belongs to a test, whose parameters may not be given."""
    return next((found for found in told if test in (found, found.partition("[")[0])), None)


def cases_of(report: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yields suite, test and the message of a failure, if it is one, of all that were run."""
    for case in ET.parse(report).iter("testcase"):
        suite, test = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
        failure, error = case.find("failure"), case.find("error")
        if failure is not None:
            yield suite, test, first_line(failure)
        elif error is not None:
            yield suite, END + test, first_line(error)
        elif case.find("skipped") is None:
            yield suite, test, None


def first_line(failure: ET.Element) -> str:
    """What is wrong, without the advice."""
    message = failure.attrib["message"].removeprefix("failed on teardown with ").strip('"')
    return message.partition("\n")[0]


if __name__ == "__main__":
    main()
