"""The fixtures for tests of code that uses Wool, as pytest finds them in a project of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)  # they start some fifteen processes, one after the other

JOBS = """
    import asyncio, os, threading
    import pytest
    import wool

    @wool.routine
    async def add(x, y):
        return x + y

    @wool.routine
    async def where():
        return os.getpid(), threading.get_ident()

    @wool.routine
    async def sleeping(began):
        began.touch()
        await asyncio.sleep(600)

    @wool.routine
    async def count(n):
        for number in range(n):
            yield number
"""


class Project:
    """A folder with tests; anything unusual about a run of pytest fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "jobs.py").write_text(textwrap.dedent(JOBS))

    def run(self, code: str, *options: str) -> str:
        """Writes a test module, runs it, and returns what pytest says."""
        head = "import asyncio, os, threading\nimport pytest\nfrom jobs import *\n"
        (self.folder / "test_it.py").write_text(head + textwrap.dedent(code))
        scope = "asyncio_default_fixture_loop_scope=function"
        asyncio_there = "-p" not in options or "no:asyncio" not in options
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider"]
            + ["-o", scope] * asyncio_there
            + list(options),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=170,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_pool_in_this_process(project: Project) -> None:
    """For tests of every sort: there is no event loop that the pool would belong to."""
    told = project.run("""
        def test_plain(wool_pool):
            assert asyncio.run(add(1, 2)) == 3
            with asyncio.Runner() as runner:
                assert runner.run(add(1, 2)) == 3
            assert len(wool_pool.workers) == 2

        @pytest.mark.asyncio
        async def test_of_pytest_asyncio(wool_pool):
            pid, thread = await where()
            assert pid == os.getpid()
            assert thread != threading.get_ident()
            assert [number async for number in count(3)] == [0, 1, 2]

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_of_anyio(wool_pool):
            assert await add(1, 2) == 3

        def test_without():
            assert asyncio.run(where())[1] == threading.get_ident()
    """)
    assert "4 passed" in told


def test_without_plugins_for_asyncio(project: Project) -> None:
    told = project.run(
        "def test_plain(wool_pool): assert asyncio.run(add(1, 2)) == 3",
        *("-p", "no:asyncio", "-p", "no:anyio"),
    )
    assert "1 passed" in told


def test_a_pool_on_each_transport(project: Project) -> None:
    told = project.run(
        """
        @pytest.fixture
        def wool_pool_options():
            return {"size": 1}

        async def test_each(wool_pool_on_each_transport):
            assert await add(1, 2) == 3
            pid, thread = await where()
            (worker,) = wool_pool_on_each_transport.workers
            assert pid == worker.pid
            assert (pid == os.getpid()) == worker.address.startswith("memory:")
        """,
        *("-o", "asyncio_mode=auto"),
    )
    for name in ("memory", "unix", "grpc", "ws"):
        assert f"test_each[{name}] PASSED" in told


def test_options_and_faults(project: Project) -> None:
    told = project.run("""
        @pytest.fixture
        def wool_pool_options():
            return {"size": 1, "tags": ["gpu"]}

        @pytest.mark.asyncio
        async def test_clogged(wool_pool, wool_faults):
            (worker,) = wool_pool.workers
            assert worker.tags == {"gpu"}
            calling = asyncio.ensure_future(add(1, 2))
            with wool_faults.clog(worker):
                await asyncio.wait([calling], timeout=0.05)
                assert not calling.done()
            assert await calling == 3

        @pytest.mark.asyncio
        async def test_killed(wool_faults, wool_pool_on_each_transport, tmp_path):
            (worker,) = wool_pool_on_each_transport.workers
            if worker.pid != os.getpid():
                calling = asyncio.ensure_future(sleeping(tmp_path / "began"))
                while not (tmp_path / "began").exists():
                    await asyncio.sleep(0.01)
                wool_faults.kill(worker)
                with pytest.raises(wool.WorkerLost):
                    await calling
            assert await add(1, 2) == 3
    """)
    for name in ("clogged", "killed[memory]", "killed[unix]", "killed[grpc]", "killed[ws]"):
        assert f"test_{name} PASSED" in told


def test_a_project_with_settings(project: Project) -> None:
    """A pool in this process needs none of the workers that the project has elsewhere."""
    (project.folder / "pyproject.toml").write_text("""
        [tool.wool]
        discovery = "static"
        transport = "ws"
        size = 0
        [tool.wool.static]
        addresses = ["ws://127.0.0.1:9"]
    """)
    told = project.run("""
        def test_plain(wool_pool):
            assert asyncio.run(add(1, 2)) == 3
            assert len(wool_pool.workers) == 2
    """)
    assert "1 passed" in told


def test_what_the_guide_shows(project: Project) -> None:
    guide = Path(__file__).parent.parent.parent / "docs" / "guides" / "testing.md"
    (example,) = re.findall(r"```python\n([^`]*wool_pool[^`]*)```", guide.read_text())
    told = project.run(example)
    for name in ("plain", "async[memory]", "async[grpc]", "size"):
        assert f"test_{name} PASSED" in told


def test_a_failing_test_ends_its_pool(project: Project) -> None:
    told = project.run("""
        @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
        @pytest.mark.asyncio
        async def test_fails(wool_pool):
            await add(1, 2)
            1 / 0

        def test_others():
            assert not [one for one in threading.enumerate() if "wool" in one.name]
            assert wool.current_pool() is None
    """)
    assert "1 passed, 1 xfailed" in told


def test_who_does_not_use_it_does_not_pay(tmp_path: Path) -> None:
    """pytest reads its few lines, and none of Wool's."""
    (tmp_path / "test_it.py").write_text("def test_nothing(): pass")
    code = """
        import sys, pytest
        assert pytest.main(["-q", "-p", "no:cacheprovider"]) == 0
        print(sorted(name for name in sys.modules if name.split(".")[0] == "wool"))
    """
    command: list[Any] = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.stdout.endswith("['wool', 'wool.testing', 'wool.testing.plugin']\n"), done.stderr
