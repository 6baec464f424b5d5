"""`wool plugin new`: what it writes is installed, found, used, and passes the kits as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wool.cli import main
from wool.cli.plugin import TEMPLATES

ROOT = Path(__file__).parents[2]


def new(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plugin", "new", *map(str, arguments)])


pytestmark = pytest.mark.timeout(240)


class Workshop:
    """A new distribution of each kind, in an environment that also has what is installed here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env" / "bin" / "python"
        self.results = {kind: new(kind, f"my-{kind}", "--into", folder) for kind in TEMPLATES}
        venv.EnvBuilder(symlinks=True).create(folder / "env")
        name = f"python{sysconfig.get_python_version()}"
        here = sysconfig.get_paths()["purelib"]
        beside = folder / "env" / "lib" / name / "site-packages" / "here.pth"
        beside.write_text(f"import site; site.addsitedir({here!r})\n")
        uv = Path(sys.executable).with_name("uv")
        command = [uv if uv.exists() else "uv", "pip", "install", "--quiet", "--no-deps"]
        folders = [self.distribution(kind) for kind in TEMPLATES]
        subprocess.run([*command, "--python", self.python, *folders], check=True, timeout=200)

    def distribution(self, kind: str) -> Path:
        return self.folder / f"wool-my-{kind}"

    def test(self, kind: str) -> subprocess.Popen[bytes]:
        """Begins to run the tests of a distribution."""
        # In clear is how the kit itself is tried on TCP.
        some = ["-k", "WithTls or pool"] if kind == "transport" else []
        with self.log(kind).open("wb") as log:
            return subprocess.Popen(
                [self.python, "-m", "pytest", "-q", f"--basetemp={self.folder}/{kind[:2]}", *some],
                cwd=self.distribution(kind),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, kind: str) -> Path:
        """What the tests of a distribution have said."""
        return self.folder / f"{kind}.log"

    def plugins(self, *options: str) -> dict[str, Any]:
        done = subprocess.run(
            [self.python, "-m", "wool.cli", "plugins", "--json", *options],
            capture_output=True,
            text=True,
            cwd=self.folder,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def tested(workshop: Workshop) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Runs the tests of all kinds at once: they wait most of the time."""
    runs = {kind: workshop.test(kind) for kind in TEMPLATES}
    yield runs
    for run in runs.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_is_found(kind: str, workshop: Workshop) -> None:
    row = workshop.plugins()[f"my-{kind}"]
    assert (row["kind"], row["distribution"], row["version"], row["module"]) == (
        kind,
        f"wool-my-{kind}",
        "0.1.0",
        f"wool_my_{kind}",
    )
    assert row["problem"] is None


def test_it_can_be_used(workshop: Workshop) -> None:
    rows = workshop.plugins("--check")
    assert all(rows[f"my-{kind}"]["usable"] for kind in TEMPLATES)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_passes_its_tests(
    kind: str, workshop: Workshop, tested: dict[str, subprocess.Popen[bytes]]
) -> None:
    """The kit among them."""
    assert workshop.results[kind].exit_code == 0
    status = tested[kind].wait()
    said = workshop.log(kind).read_text()
    assert status == 0, said
    assert " passed" in said
    assert "Warning" not in said


def test_it_is_in_good_style(workshop: Workshop) -> None:
    """Ours, but for docstrings of tests and packages of them."""
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(workshop.folder)]
    style = [*ruff, "check", "--ignore", "D1,INP,I,RUF100", "--exclude", "env", *config]
    for command in (style, [*ruff, "format", "--check", "--exclude", "env", *config]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_its_types_are_sound(workshop: Workshop) -> None:
    settings = {
        "include": [f"wool-my-{kind}/src" for kind in TEMPLATES],
        "extraPaths": [f"wool-my-{kind}/src" for kind in TEMPLATES],
        "typeCheckingMode": "standard",
    }
    (workshop.folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "-p", ".", "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workshop.folder)
    assert done.returncode == 0, done.stdout


def test_what_is_said_next(tmp_path: Path) -> None:
    result = new("discovery", "lighthouse", "--into", tmp_path)
    folder = tmp_path / "wool-lighthouse"
    assert str(folder / "src" / "wool_lighthouse" / "_discovery.py") in result.stdout.splitlines()
    assert f"cd {folder}" in result.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == sorted(result.stdout.split())
    assert not [path for path in files if "@" in str(path.relative_to(tmp_path))]
    assert (
        "class LighthouseDiscovery(Discovery)"
        in (folder / "src" / "wool_lighthouse" / "_discovery.py").read_text()
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new("observer", "watchman", "--into", tmp_path)
    path = tmp_path / "wool-watchman" / "README.md"
    path.write_text("mine")
    result = new("observer", "watchman", "--into", tmp_path)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert path.read_text() == "mine"
    (tmp_path / "wool-nightman").write_text("a file")
    assert new("observer", "nightman", "--into", tmp_path).exit_code == 1
    assert (tmp_path / "wool-nightman").read_text() == "a file"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Foo", "is not a name like"),
        ("../up", "is not a name like"),
        ("näme", "is not a name like"),
        ("x" * 41, "is not a name like"),
        ("", "is not a name like"),
        ("wool-thing", "no `wool-`"),
        ("grpc", "Wool's own"),
        ("token", "Wool's own"),
    ],
)
def test_names_of_no_use(name: str, words: str, tmp_path: Path) -> None:
    result = new("transport", name, "--into", tmp_path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert os.listdir(tmp_path) == []


def test_kinds_that_there_are_not(tmp_path: Path) -> None:
    result = new("balancer", "scales", "--into", tmp_path)
    assert result.exit_code == 2
    assert "'transport', 'discovery', 'serializer', 'launcher', 'observer'" in result.stderr


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = new("observer", "watchman", "--into", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.strip() == "wool: there: Permission denied"
