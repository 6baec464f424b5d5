"""What all conformance kits have in common: each check tells its promise and what to do."""

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
    testing.SerializerSuite,
]


@pytest.mark.parametrize("suite", SUITES)
def test_every_check_has_a_promise_and_a_remedy(suite: type) -> None:
    names = [name for name in dir(suite) if name.startswith("test_")]
    assert len(names) >= 8
    for name in names:
        check = getattr(suite, name)
        assert check.__doc__, name
        assert check.__doc__.strip().splitlines()[0].rstrip().endswith((".", "?")), name
        assert getattr(check, "remedy", "").endswith("."), name


def test_both_are_told_when_it_fails() -> None:
    test = "broken_announcing.py::TestForgetsKilledAnnouncers::test_an_announcer_that_is_killed"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            f"tests/unit/discoveries/{test}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    told = " ".join(line.removeprefix("E").strip() for line in done.stdout.splitlines())
    assert "Promise: Workers whose process was killed are gone `gone_within` seconds" in told
    assert "What to do: Let what is announced expire unless it is renewed" in told
