"""Directories for Unix sockets: private, locked while in use, removed, swept."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wool._security import sockets
from wool._security.sockets import MAX_PATH
from wool.abc import ConnectFailed


@pytest.fixture
def folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new temporary folder with a short path."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def bind(path: str | Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))


def test_the_life_of_a_directory(folder: Path) -> None:
    one, other = sockets.new_directory(), sockets.new_directory()
    directory = Path(one)
    assert directory.parent == folder and one != other
    assert not directory.exists()
    locks = [sockets.enter(one), sockets.enter(one)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    sockets.check(one)
    paths = {sockets.socket_in(one), sockets.socket_in(one)}
    assert len(paths) == 2 and all(Path(path).parent == directory for path in paths)
    for path in paths:
        bind(path)
    for lock in locks:
        os.close(lock)
    sockets.discard(one)
    sockets.discard(one)
    assert not directory.exists()


def test_a_socket_is_reclaimed_when_its_listener_has_died(folder: Path) -> None:
    path = str(folder / "s")
    sockets.reclaim(path)  # there is none
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(path)
        living.listen(0)
        for _ in range(3):  # its queue is full in the end
            sockets.reclaim(path)
            assert os.path.exists(path)
    sockets.reclaim(path)
    assert not os.path.exists(path)


def test_what_is_no_socket_is_not_reclaimed(folder: Path) -> None:
    path = folder / "precious"
    path.touch()
    sockets.reclaim(str(path))
    assert path.exists()


def test_two_discard_a_directory_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As workers do whose pool's process was killed: who comes second to a socket goes on."""
    directory = sockets.new_directory()
    os.close(sockets.enter(directory))
    for _ in range(3):
        bind(sockets.socket_in(directory))
    scandir = os.scandir

    def overtaken(path: str) -> list[os.DirEntry[str]]:
        entries = list(scandir(path))
        os.unlink(entries[0])
        return entries

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", overtaken)
        sockets.discard(directory)
    assert not Path(directory).exists()


def test_only_directories_of_ours_are_discarded(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir(0o700)
    sockets.discard(str(mine))
    assert mine.exists()


def test_what_is_no_socket_is_kept(folder: Path) -> None:
    directory = sockets.new_directory()
    os.close(sockets.enter(directory))
    (Path(directory) / "precious").touch()
    sockets.discard(directory)
    assert (Path(directory) / "precious").exists()


def test_a_temporary_folder_with_a_long_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * MAX_PATH}")
    monkeypatch.setattr(sockets, "_sweep", lambda parent: None)
    assert Path(sockets.new_directory()).parent == Path("/tmp")


def test_a_temporary_folder_in_which_others_may_replace_things(folder: Path) -> None:
    """Kubernetes makes its volumes so, and one of them is often at /tmp."""
    folder.chmod(0o777)
    assert Path(sockets.new_directory()).parent == Path("/tmp")


def open_to_all(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)


def a_symlink(directory: Path) -> None:
    target = directory.with_name("target")
    target.mkdir(0o700)
    directory.symlink_to(target)


@pytest.mark.parametrize("make", [open_to_all, a_symlink, Path.touch])
def test_directories_that_are_refused(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / "sockets")
    for use in (sockets.enter, sockets.check):
        with pytest.raises(ConnectFailed, match="mode 0700"):
            use(str(folder / "sockets"))


@pytest.mark.parametrize("through", ["above", "link"])
def test_a_directory_that_others_may_replace(folder: Path, through: str) -> None:
    """A user who can write to its parent, or replace a link to that, can replace it."""
    above = folder / "above"
    private = above / "private"
    private.mkdir(parents=True, mode=0o700)
    if through == "link":
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "private").mkdir(0o700)
        (above / "link").symlink_to(folder / "elsewhere")
        private = above / "link" / "private"
    sockets.check(str(private))
    above.chmod(0o777)
    for use in (sockets.enter, sockets.check):
        with pytest.raises(ConnectFailed, match=r"every user may replace .*/above .*chmod \+t"):
            use(str(private))
    above.chmod(0o1777)
    sockets.check(str(private))


def test_a_directory_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sockets").mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConnectFailed, match="mode 0700"):
        sockets.enter(str(folder / "sockets"))


def test_a_directory_that_cannot_be_made(folder: Path) -> None:
    with pytest.raises(ConnectFailed, match=r"cannot listen in .*: No such file"):
        sockets.enter(str(folder / "missing" / "sockets"))


# Sweeping


def make_old(path: Path) -> Path:
    then = time.time() - 3600
    os.utime(path, (then, then))
    return path


def stale(folder: Path, name: str = "wool-0123456789abcdef") -> Path:
    """Makes what a pool leaves if all of its processes were killed."""
    directory = folder / name
    directory.mkdir(0o700)
    bind(directory / "socket")
    return make_old(directory)


def test_sweeping_removes_what_is_old_and_unlocked(folder: Path) -> None:
    directory = stale(folder)
    sockets.new_directory()
    assert not directory.exists()


def test_sweeping_keeps_what_is_young(folder: Path) -> None:
    directory = stale(folder)
    os.utime(directory)
    sockets.new_directory()
    assert (directory / "socket").exists()


def test_sweeping_keeps_what_is_locked(folder: Path) -> None:
    directory = stale(folder)
    locks = [sockets.enter(str(directory)), sockets.enter(str(directory))]
    for lock in locks:
        make_old(directory)
        sockets.new_directory()
        assert (directory / "socket").exists()
        os.close(lock)
    sockets.new_directory()
    assert not directory.exists()


def test_sweeping_keeps_what_is_not_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = stale(folder, "other-0123456789abcdef")
    file = folder / "wool-1111111111111111"
    file.touch()
    make_old(file)
    link = folder / "wool-2222222222222222"
    link.symlink_to(other)
    then = time.time() - 3600
    os.utime(link, (then, then), follow_symlinks=False)
    sockets.new_directory()
    assert (other / "socket").exists() and file.exists() and link.is_symlink()
    somebody = stale(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    sockets.new_directory()
    assert (somebody / "socket").exists()
