"""The conformance kit of transports: ours pass it, broken ones do not."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import uvloop

from unit.transports.tcp import TcpTransport
from wool._backends import memory, unix
from wool.abc import Tls, Transport
from wool.testing import TransportSuite, throwaway_tls


class TestUnix(TransportSuite):
    def transport(self) -> Transport:
        return unix.UnixTransport(unix.Options())

    def address(self, tmp_path: Path) -> str:
        return f"unix://{tmp_path}/socket"


@pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")
class TestUnixOnUvloop(TestUnix):
    @pytest.fixture
    def event_loop_policy(self) -> asyncio.AbstractEventLoopPolicy:
        return uvloop.EventLoopPolicy()


class TestMemory(TransportSuite):
    in_process = True

    def transport(self) -> Transport:
        return memory.MemoryTransport()


class TestTcp(TransportSuite):
    def transport(self) -> Transport:
        return TcpTransport()


class TestTcpWithTls(TestTcp):
    def credentials(self) -> Tls:
        return throwaway_tls()


FOLDER = Path(__file__).parent / "transports"
ROOT = FOLDER.parent.parent.parent
KINDS = ("messages", "flow", "places", "security")
END = "end of "


class Run:
    """Runs, in another process, the tests that are to fail."""

    def __init__(self, name: str, folder: Path) -> None:
        module = importlib.import_module(f"unit.transports.broken_{name}")
        self.suites = [suite for suite in vars(module).values() if getattr(suite, "caught_by", ())]
        self.expected = [
            (suite.__name__, test) for suite in self.suites for test in suite.caught_by
        ]
        self.report, self.log = folder / f"{name}.xml", folder / f"{name}.log"
        file = FOLDER / f"broken_{name}.py"
        tests = [f"{file}::{suite}::{test.removeprefix(END)}" for suite, test in self.expected]
        options = ["--tb=native", f"--junitxml={self.report}", f"--basetemp={folder / name}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *tests],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def failed(self) -> Iterator[tuple[str, str]]:
        """Waits; then yields suite and test of what has failed, with parameters and without."""
        self.process.wait(120)
        for case in ET.parse(self.report).iter("testcase"):
            suite, name = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
            for test in (name, name.partition("[")[0]):
                if case.find("failure") is not None:
                    yield suite, test
                error = case.find("error")
                if error is not None and "failed on teardown" in error.attrib["message"]:
                    yield suite, END + test


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All at once: they wait most of the time."""
    folder = tmp_path_factory.mktemp("broken")
    runs = {name: Run(name, folder) for name in KINDS}
    yield runs
    for run in runs.values():
        run.process.kill()
        run.process.wait()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", KINDS)
def test_broken_transports_fail(name: str, runs: dict[str, Run]) -> None:
    """Each at least in those tests that are about its defect."""
    run = runs[name]
    failed = set(run.failed())
    print(run.log.read_text())  # for whoever has to find out why one was not caught
    assert len(run.suites) > 10
    assert sorted(set(run.expected) - failed) == []


@pytest.mark.parametrize("name", ["pytest", "pytest_asyncio", "hypothesis"])
def test_a_library_that_is_missing(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; import wool.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = f'ImportError: wool.testing needs {name}: pip install "wool-core[testing]"'
    assert done.stderr.strip().endswith(expected)
