"""All conformance kits have this in common: each check tells its promise and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wool import testing

ROOT = Path(__file__).parent.parent.parent
SUITES = [
    testing.TransportSuite,
    testing.DiscoverySuite,
    testing.AddressDiscoverySuite,
    testing.LauncherSuite,
    testing.SerializerSuite,
]


@pytest.mark.parametrize("suite", SUITES)
def test_every_check_has_a_promise_and_a_remedy(suite: type) -> None:
    names = [name for name in dir(suite) if name.startswith("test_")]
    assert len(names) >= 7
    for name in names:
        check = getattr(suite, name)
        assert check.__doc__, name
        assert check.__doc__.strip().splitlines()[0].rstrip().endswith((".", "?")), name
        assert getattr(check, "remedy", "").endswith("."), name


def run_broken(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs checks on broken back-ends in a process of their own: what they leave stays in it."""
    alone = ["-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *alone, *options, f"tests/unit/broken_{tests}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["transports", "discoveries", "serializers", "launchers"])
def test_broken_back_ends_are_found(kind: str) -> None:
    """Each fails those checks that are about its defect: `conftest.py` marks them so."""
    done = run_broken(f"{kind}.py", "--tb=native")
    assert done.returncode == 0, done.stdout[-5000:]
    assert " xfailed" in done.stdout


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (
            "discoveries.py::TestForgetsKilledAnnouncers::test_an_announcer_that_is_killed",
            "is still known Promise: Workers whose process was killed are gone",
        ),
        ("transports.py::TestLeavesTasks::test_order", "tasks are left behind"),
        (
            "discoveries.py::TestLeaksWhenCancelled::test_cancelling_at_any_time",
            "tasks are left behind",
        ),
    ],
)
def test_what_is_told_when_one_fails(check: str, told: str) -> None:
    """Also where it fails at its end."""
    done = run_broken(check, "--runxfail", "--tb=short")
    said = " ".join(line.removeprefix("E").strip() for line in done.stdout.splitlines())
    said = " ".join(said.split())
    assert told in said, done.stdout
    assert "Promise: " in said
    assert "What to do: " in said
