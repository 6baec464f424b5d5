"""The discovery `shm` within one process: its events, its files, its limits and its leaks."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wool.abc import Changed, Discovery, Joined, Left, Snapshot, WorkerInfo
from wool.exceptions import ConfigurationError, WoolError
from wool_shm import Options, _directory, _records, wool_discoveries

A = WorkerInfo(
    id="a",
    address="unix:///tmp/a",
    tags=frozenset({"gpu", "tür"}),
    host="here",
    pid=7,
    python="3.11",
    version="0.1.0",
    serializers=("cloudpickle", "dill"),
    load=3,
)
B = WorkerInfo(id="b", address="ws://[::1]:9")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder in shared memory, for the discovery to use."""
    path = Path(
        tempfile.mkdtemp(prefix="wool-test-", dir=os.path.dirname(_directory.path_of(None)))
    )
    yield path
    shutil.rmtree(path)


@pytest.fixture
def discovery(base: Path) -> Discovery:
    return make(base)


def make(base: Path, namespace: str = "default") -> Discovery:
    (plugin,) = wool_discoveries()
    return plugin.factory(Options(namespace=namespace, directory=base))


def there(base: Path) -> list[str]:
    """The kinds of files in the discovery's directory."""
    return sorted(path.suffix for path in base.glob("*/*"))


async def following(events: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(30):
        return await anext(events)


async def snapshot(discovery: Discovery) -> set[WorkerInfo]:
    """Returns what somebody finds who comes now."""
    async with discovery.watch() as events:
        first = await following(events)
    assert isinstance(first, Snapshot)
    return set(first.workers)


# Events


async def test_a_worker_that_is_announced_twice(discovery: Discovery) -> None:
    """It is there until both are gone, and what was said last counts."""
    later = replace(A, load=8)
    async with discovery.watch() as events:
        assert await following(events) == Snapshot([])
        async with discovery.announce(A):
            assert await following(events) == Joined(A)
            async with discovery.announce(later):
                assert await following(events) == Changed(later)
            assert await following(events) == Changed(A)
        assert await following(events) == Left(A)


# Files


async def test_only_their_user_gets_at_the_files(base: Path, discovery: Discovery) -> None:
    before = os.umask(0)
    try:
        async with discovery.announce(A):
            (folder,) = base.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert there(base) == [".lock", ".worker"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    finally:
        os.umask(before)
    assert list(base.iterdir()) == []


async def test_where_it_is_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody else can make it first, if there is such a place; else in shared memory."""
    user = f"wool-shm-1-{os.geteuid()}"
    mine = tmp_path / "run"
    mine.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(mine))
    assert _directory.path_of(None) == str(mine / user)
    mine.chmod(0o777)
    runtime = f"/run/user/{os.geteuid()}"
    if os.path.isdir(runtime):
        assert _directory.path_of(None) == f"{runtime}/{user}"
        return
    if os.path.isdir("/dev/shm"):
        assert _directory.path_of(None) == f"/dev/shm/{user}"
    monkeypatch.setattr(_directory, "SHARED_MEMORY", str(tmp_path / "nothing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert _directory.path_of(None) == str(tmp_path / user)
    monkeypatch.chdir(tmp_path)
    assert _directory.path_of(Path("here")) == str(tmp_path / "here" / user)


def foreign(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 4321, 4321)


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(lambda path: path.mkdir(mode=0o755), r"open to other users \(mode 0755\)"),
        pytest.param(lambda path: path.touch(), "is not a directory"),
        pytest.param(linked, "is not a directory"),
        pytest.param(
            foreign,
            r"belongs to another user \(uid 4321\)",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
        pytest.param(lambda path: path.parent.rmdir(), "cannot make the directory .*No such file"),
    ],
)
async def test_a_directory_that_is_of_no_use(
    tmp_path: Path, spoil: Callable[[Path], None], text: str
) -> None:
    spoilt = Path(_directory.path_of(tmp_path / "base"))
    spoilt.parent.mkdir()
    spoil(spoilt)
    for use in (make(spoilt.parent).watch, lambda: make(spoilt.parent).announce(A)):
        with pytest.raises(ConfigurationError, match=text) as raised:
            async with use():
                pass
        assert str(spoilt) in str(raised.value)
        assert "`directory`" in str(raised.value)


async def test_what_others_put_there_is_left_alone(base: Path, discovery: Discovery) -> None:
    async with discovery.watch() as events:
        assert await following(events) == Snapshot([])
        (folder,) = base.iterdir()
        strange = folder / "notes.txt"
        strange.write_text("mine")
        async with discovery.announce(A):
            assert await following(events) == Joined(A)
            assert await snapshot(discovery) == {A}
    assert strange.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x92\x01\x02", b"\x91\x80", b"\x93\x80"])
async def test_a_file_that_cannot_be_read_is_ignored(
    base: Path, discovery: Discovery, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with discovery.announce(A) as announcement, discovery.watch() as events:
        assert await following(events) == Snapshot([A])
        (file,) = base.glob("*/*.worker")
        file.write_bytes(content)
        assert await following(events) == Left(A)
        assert "is ignored" in caplog.text
        await announcement.update(A)
        assert await following(events) == Joined(A)


async def test_fields_of_later_versions_are_skipped(discovery: Discovery, base: Path) -> None:
    async with discovery.announce(A), discovery.watch() as events:
        assert await following(events) == Snapshot([A])
        (file,) = base.glob("*/*.worker")
        later = {"id": "a", "address": B.address, "colour": "red"}
        file.write_bytes(msgspec.msgpack.encode(later))
        assert await following(events) == Changed(WorkerInfo(id="a", address=B.address))


async def test_files_that_were_removed_from_outside(base: Path, discovery: Discovery) -> None:
    """As some systems do when a user logs out. Watchers go on; who announces comes back."""
    async with discovery.announce(A) as announcement, discovery.watch() as events:
        assert await following(events) == Snapshot([A])
        for _ in range(3):
            (folder,) = base.iterdir()
            shutil.rmtree(folder)
            assert await following(events) == Left(A)
            await announcement.update(A)
            assert await following(events) == Joined(A)
            async with discovery.announce(B):
                assert await following(events) == Joined(B)
            assert await following(events) == Left(B)
    assert list(base.iterdir()) == []


# Limits


@contextmanager
def limit(what: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


async def test_no_room(base: Path, discovery: Discovery) -> None:
    """A worker that was announced remains as it was."""
    large = replace(A, tags=frozenset({"x" * 2000}))
    async with discovery.watch() as events:
        assert await following(events) == Snapshot([])
        with limit(resource.RLIMIT_FSIZE, 1000):
            with pytest.raises(WoolError, match="cannot announce the worker 'a' in .*too large"):
                async with discovery.announce(large):
                    pass
            assert there(base) == []
            async with discovery.announce(A) as announcement:
                assert await following(events) == Joined(A)
                with pytest.raises(WoolError, match="cannot announce the worker 'a' in .*too lar"):
                    await announcement.update(large)
                with pytest.raises(WoolError, match="cannot announce the worker 'b' in .*too lar"):
                    async with discovery.announce(replace(large, id="b")):
                        pass
                assert there(base) == [".lock", ".worker"]
                async with discovery.announce(B):
                    assert await following(events) == Joined(B)
                    assert await snapshot(discovery) == {A, B}
                assert await following(events) == Left(B)
                await announcement.update(replace(A, load=4))
                assert await following(events) == Changed(replace(A, load=4))
            assert await following(events) == Left(replace(A, load=4))


async def test_a_watch_that_cannot_go_on_says_why(base: Path, discovery: Discovery) -> None:
    async with discovery.watch() as events:
        assert await following(events) == Snapshot([])
        base.chmod(0o755)
        (folder,) = base.iterdir()
        folder.rmdir()
        folder.touch()
        with pytest.raises(ConfigurationError, match="is not a directory"):
            await following(events)


# Races


@pytest.mark.parametrize("meanwhile", ["is done", "has begun"])
async def test_a_newborn_is_swept(
    base: Path, discovery: Discovery, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Another process takes it for dead before it is locked, and removes it, or is about to."""
    original, swept = _records._locks, list[str]()

    def locks(descriptor: int, kind: int) -> bool:
        if swept or kind != fcntl.LOCK_EX:
            return original(descriptor, kind)
        (newborn,) = base.glob("*/*.lock")
        swept.append(newborn.name)
        if meanwhile == "has begun":
            return False  # the other process has locked it
        newborn.unlink()
        return original(descriptor, kind)

    monkeypatch.setattr(_records, "_locks", locks)
    async with discovery.announce(A):
        (file,) = base.glob("*/*.lock")
        assert swept
        assert file.name not in swept
        assert await snapshot(discovery) == {A}
    assert list(base.iterdir()) == []


async def test_the_directory_is_removed_as_its_last_user_leaves(
    base: Path, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, removed = _directory.make, list[str]()

    def make_and_lose(path: str) -> None:
        original(path)
        if len(removed) < 3:
            removed.append(path)
            os.rmdir(path)

    monkeypatch.setattr(_directory, "make", make_and_lose)
    async with discovery.announce(A):
        removed.clear()
        monkeypatch.setattr(_directory, "make", original)
        assert await snapshot(discovery) == {A}
    monkeypatch.setattr(_directory, "make", make_and_lose)
    async with discovery.watch() as events:
        assert await following(events) == Snapshot([])
        assert len(removed) == 3
