"""Modules of the caller's project on workers that were there before and lack them."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import pytest_asyncio

import wool
from support.serving import workers
from wool._client import identity

Project = Callable[..., None]

MAIN = """
import asyncio, pathlib, sys
import wool
from jobs import greet

async def main():
    async with wool.WorkerPool(discovery=sys.argv[1:2]):
        print(await greet("you"), flush=True)
        if len(sys.argv) > 2:
            while not pathlib.Path(sys.argv[2]).exists():
                await asyncio.sleep(0.01)
            print(await greet("you"), flush=True)

asyncio.run(main())
"""

JOBS = """
import wool
from words import greeting

@wool.routine
async def greet(name):
    import punctuation
    return greeting(name) + punctuation.mark
"""


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    """Of one worker in an empty folder."""
    async with workers("unix", 1) as addresses:
        yield addresses[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Writes modules into a folder that is on the path of this process."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a quick edit would not be seen
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(folder: str = ".", **sources: str) -> None:
        for name, source in sources.items():
            path = tmp_path / folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-B", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


async def said(process: subprocess.Popen[str]) -> str:
    out, err = await asyncio.to_thread(process.communicate, timeout=40)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def hello(word: str) -> str:
    return f"def greeting(name): return f'{word} {{name}}'\n"


async def test_edited_and_run_again(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user would: a worker in one folder, a project in another, nothing configured."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    project("project", main=MAIN.replace("sys.argv[1:2]", '"shm"'), jobs=JOBS)
    project("project", words=hello("hello"), punctuation="mark = '!'")
    script = str(Path(sys.executable).with_name("wool"))
    variables = {**os.environ, "WOOL_SHM__NAMESPACE": f"test-{os.getpid()}"}
    variables.pop("PYTHONPATH", None)
    worker = subprocess.Popen(
        [script, "worker", "--discovery", "shm"],
        cwd=elsewhere,
        env=variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        main = tmp_path / "project"
        namespace = variables["WOOL_SHM__NAMESPACE"]
        assert await said(run(main, "main.py", WOOL_SHM__NAMESPACE=namespace)) == "hello you!"
        project("project", words=hello("good day"), punctuation="mark = '.'")
        assert await said(run(main, "main.py", WOOL_SHM__NAMESPACE=namespace)) == "good day you."
        assert worker.poll() is None
        assert list(elsewhere.iterdir()) == []
    finally:
        worker.kill()
        worker.wait()


async def test_two_callers_with_two_versions(
    address: str, tmp_path: Path, project: Project
) -> None:
    project("one", main=MAIN, jobs=JOBS, words=hello("one"), punctuation="mark = '1'")
    project("two", main=MAIN, jobs=JOBS, words=hello("two"), punctuation="mark = '2'")
    both = [run(tmp_path / name, "main.py", address, "../go") for name in ("one", "two")]
    for process in both:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
    (tmp_path / "go").touch()
    assert await asyncio.gather(*map(said, both)) == ["one you1", "two you2"]


async def test_loaded_anew(address: str, project: Project) -> None:
    project(jobs=JOBS, words=hello("hello"), punctuation="mark = '!'")
    jobs = importlib.import_module("jobs")
    async with wool.WorkerPool(discovery=[address]):
        assert await jobs.greet("you") == "hello you!"
        project(punctuation="mark = '???'")
        assert await jobs.greet("you") == "hello you!"
        importlib.reload(importlib.import_module("punctuation"))
        assert await jobs.greet("you") == "hello you???"
        project(words=hello("good day"))
        importlib.reload(importlib.import_module("words"))
        importlib.reload(jobs)
        assert await jobs.greet("you") == "good day you???"


async def test_own_workers_beside_others(
    address: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the pool import what this process does; it is sent to the others only.

    So do they, for calls that their routines make of others.
    """
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    project("site-packages", vendored="VALUE = 1")
    project(
        visits="""
        import os, sys
        import wool
        from visited import Place

        @wool.routine
        async def anywhere(depth, seen):
            import vendored
            assert vendored.VALUE == 1
            sent = type(sys.modules["visited"].__loader__).__module__.startswith("wool.")
            place = Place(os.getpid(), sent)
            seen = [*seen, place]
            return seen if depth == 0 else await anywhere(depth - 1, seen)
        """,
        visited="""
        from typing import NamedTuple
        class Place(NamedTuple):
            pid: int
            sent: bool
        """,
    )
    visits = importlib.import_module("visits")
    visited = importlib.import_module("visited")
    async with wool.WorkerPool(size=1, discovery=[address], ship=["vendored"]) as pool:
        await pool.wait(2)
        seen = {place for _ in range(10) for place in await visits.anywhere(6, [])}
        assert {type(place) for place in seen} == {visited.Place}
        pids = {worker.pid: worker.address == address for worker in pool.workers}
        assert {place.pid: place.sent for place in seen} == pids


@pytest.mark.parametrize("place", ["unix", "memory", "elsewhere"])
async def test_sent_on_by_a_pool_inside_of_a_routine(place: str, project: Project) -> None:
    """Its workers lack them as well, and those of a pool in a routine of theirs."""
    project(
        fans="""
        import dataclasses, sys
        import wool

        @wool.routine
        async def fan_out(place, depth, value):
            import ribs

            assert type(value) is ribs.Rib
            if not depth:
                return [dataclasses.replace(value, number=value.number + 1)]
            async with wool.WorkerPool(**place):
                found, *_ = await fan_out(place, depth - 1, value)
                assert type(found) is ribs.Rib
                assert [n async for n in counted(found)] == [found] * 2
                return [found, *await ribs.fold(found)]

        @wool.routine
        async def counted(value):
            yield value
            yield value
        """,
        ribs="""
        import dataclasses
        import wool

        @dataclasses.dataclass(frozen=True)
        class Rib:
            number: int

        @wool.routine
        async def fold(rib):
            return [lambda: rib, Rib]
        """,
    )
    fans = importlib.import_module("fans")
    ribs = importlib.import_module("ribs")
    async with workers("unix", 2) as (address, other), wool.WorkerPool(discovery=[address]):
        opened = {"discovery": [other]} if place == "elsewhere" else {"transport": place, "size": 1}
        for depth in (1, 2):
            found = await fans.fan_out(opened, depth, ribs.Rib(1))
            assert found[0] == ribs.Rib(2)
            assert found[1]() == ribs.Rib(2)
            assert found[2] is ribs.Rib


async def test_modules_that_are_installed_here(
    address: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    project("site-packages", vendored="VALUE = 1\ndef value(): return VALUE\n")
    project(
        uses="""
        import wool
        import vendored

        @wool.routine
        async def value():
            return vendored.value()
        """
    )
    uses = importlib.import_module("uses")
    async with wool.WorkerPool(discovery=[address]):
        with pytest.raises(wool.SerializationError) as raised:
            await uses.value()
    for words in ("uses:value", "No module named 'vendored'", "worker", "ship=['vendored']"):
        assert words in str(raised.value)
    for given in ("vendored", importlib.import_module("vendored")):
        async with wool.WorkerPool(discovery=[address], ship=[given]):
            assert await uses.value() == 1


async def test_modules_that_all_workers_have(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("worker", common="WHERE = 'there'", lib____init__="", lib__part="WHERE = 'there'")
    project(
        common="WHERE = 'here'",
        lib____init__="",
        lib__part="WHERE = 'here'",
        asks="""
        import wool
        import common
        from lib.part import WHERE

        @wool.routine
        async def where():
            return common.WHERE, WHERE
        """,
    )
    asks = importlib.import_module("asks")
    async with workers("unix", 1, PYTHONPATH=str(tmp_path / "worker")) as addresses:
        async with wool.WorkerPool(discovery=addresses):
            assert await asks.where() == ("here", "here")
        async with wool.WorkerPool(discovery=addresses, by_reference=["lib"]):
            assert await asks.where() == ("here", "there")
        monkeypatch.setenv("WOOL_BY_REFERENCE", "common, lib")
        async with wool.WorkerPool(discovery=addresses):
            assert await asks.where() == ("there", "there")
        async with wool.WorkerPool(discovery=addresses, by_reference=[]):
            assert await asks.where() == ("here", "here")


async def test_a_worker_keeps_its_own(project: Project, tmp_path: Path) -> None:
    """Modules that the program that serves has imported itself stay."""
    project(
        "program",
        words="def greeting(name): return 'own'",
        serve="""
        import asyncio, sys
        import words
        import wool

        async def main():
            async with wool.Worker() as worker:
                print(worker.info.address, flush=True)
                await asyncio.to_thread(sys.stdin.readline)
            import words as again
            assert again is words and again.greeting("x") == "own", again
            print("kept", flush=True)

        asyncio.run(main())
        """,
    )
    project(jobs=JOBS, words=hello("hello"), punctuation="mark = '!'")
    jobs = importlib.import_module("jobs")
    serving = subprocess.Popen(
        [sys.executable, "serve.py"],
        cwd=tmp_path / "program",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        address = (await asyncio.to_thread(serving.stdout.readline)).strip()
        async with wool.WorkerPool(discovery=[address]):
            assert await jobs.greet("you") == "hello you!"
        out, _ = await asyncio.to_thread(serving.communicate, "\n", timeout=30)
        assert out == "kept\n"
    finally:
        serving.kill()
        serving.wait()


async def test_never_to_another_python(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of one minor version would crash another; such a worker is told of no call."""
    project(jobs=JOBS, words=hello("hello"), punctuation="mark = '!'")
    jobs = importlib.import_module("jobs")
    monkeypatch.setattr(
        "wool._worker.server.hello",
        lambda *args, **more: msgspec.structs.replace(identity.hello(*args, **more), python="3.9"),
    )
    async with wool.Worker() as worker:
        pool = wool.WorkerPool(discovery=[worker.info.address])
        with pytest.raises(wool.VersionMismatch, match=r"Python 3\.9"):
            async with pool:
                await jobs.greet("you")
        assert pool._pool.modules.units() == []


async def test_a_body_that_fails(address: str, project: Project, tmp_path: Path) -> None:
    project(
        fails=f"""
        import pathlib
        import wool
        if not pathlib.Path({str(tmp_path / "fine")!r}).exists():
            raise OSError("not now")

        @wool.routine
        async def answer():
            return 42
        """
    )
    (tmp_path / "fine").touch()
    fails: ModuleType = importlib.import_module("fails")
    async with wool.WorkerPool(discovery=[address]):
        (tmp_path / "fine").unlink()
        with pytest.raises(wool.SerializationError, match="fails:answer.*OSError: not now"):
            await fails.answer()
        (tmp_path / "fine").touch()
        assert await fails.answer() == 42


async def test_what_was_sent_is_forgotten(address: str, project: Project) -> None:
    """When the pool is gone, its modules leave the worker."""
    project(
        leaves="""
        import weakref
        import wool
        class Mark: pass
        mark = Mark()
        known = []

        @wool.routine
        async def remember():
            import functools
            functools.marks = [*getattr(functools, "marks", []), weakref.ref(mark)]

        @wool.routine
        async def alive():
            import functools, gc, sys
            gc.collect()
            return [ref() is not None for ref in functools.marks], "leaves" in sys.modules
        """
    )
    leaves = importlib.import_module("leaves")
    async with wool.WorkerPool(discovery=[address]):
        await leaves.remember()
        assert await leaves.alive() == ([True], True)
    async with wool.WorkerPool(discovery=[address]):

        async def gone() -> bool:
            return (await leaves.alive())[0] == [False]

        while not await gone():
            await asyncio.sleep(0.05)
