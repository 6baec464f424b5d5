"""What is published: names, entry points, import time, and nothing about our machines."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

import wool
from wool._client.identity import VERSION

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("wool-*/pyproject.toml"))

EXCEPTIONS = {
    "AuthenticationError",
    "BrokenWorkerPool",
    "ConfigurationError",
    "NoWorkersAvailable",
    "PluginError",
    "ProtocolError",
    "Rejected",
    "RemoteError",
    "SerializationError",
    "VersionMismatch",
    "WoolError",
    "WorkerLost",
    "WorkerStopped",
}
NAMES = {
    "CallNode",
    "CallStatus",
    "CallTree",
    "ContextWarning",
    "Credentials",
    "Executor",
    "Group",
    "Line",
    "ProcessStatus",
    "SyncPool",
    "Worker",
    "WorkerInfo",
    "WorkerPool",
    "current_call",
    "current_pool",
    "current_worker",
    "map",
    "reference",
    "remote",
    "routine",
}
SUBMODULES = {"abc", "exceptions", "plugins", "testing"}  # public; `__all__` may name them

ENTRY_POINTS = {
    ("wool-core", "wool.transports"): {"memory", "unix"},
    ("wool-core", "wool.discoveries"): {"dns", "static"},
    ("wool-core", "wool.serializers"): {"cloudpickle", "dill"},
    ("wool-core", "wool.launchers"): {"local", "slurm", "ssh"},
    ("wool-core", "wool.plugins"): {"otel"},
    ("wool-grpc", "wool.transports"): {"grpc"},
    ("wool-shm", "wool.discoveries"): {"shm"},
    ("wool-ws", "wool.transports"): {"ws"},
    ("wool-zeroconf", "wool.discoveries"): {"zeroconf"},
}


# Public names


def test_public_names():
    assert set(wool.__all__) - SUBMODULES == NAMES | EXCEPTIONS
    assert list(wool.__all__) == sorted(wool.__all__)
    assert dir(wool) == wool.__all__
    assert dir(wool.testing) == wool.testing.__all__


def test_star_import():
    namespace: dict[str, object] = {}
    exec("from wool import *", namespace)
    assert set(wool.__all__) <= set(namespace)


@pytest.mark.parametrize("name", sorted(NAMES | EXCEPTIONS))
def test_public_names_are_documented(name: str):
    assert getattr(wool, name).__doc__


@pytest.mark.parametrize(
    ("name", "members"),
    {
        "WorkerPool": "broadcast calls tree use wait workers",
        "Worker": "drain info serve",
        "Credentials": "new_token tls token",
        "testing.Faults": "clog cut delay drop kill refuse stop",
    }.items(),
)
def test_classes_show_what_is_public_alone(name: str, members: str):
    shown = attrgetter(name)(wool)
    assert [member for member in dir(shown) if member[0] != "_"] == members.split()
    assert all(getattr(shown, member).__doc__ for member in members.split())


def test_credentials_show_what_is_public_alone():
    shown = wool.Credentials.token(wool.Credentials.new_token())
    assert [member for member in dir(shown) if member[0] != "_"] == ["new_token", "tls", "token"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="nonsense"):
        wool.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(SUBMODULES))
def test_submodules_are_attributes(name: str):
    code = f"import wool; print(wool.{name}.__name__)"
    assert run(code).strip() == f"wool.{name}"


def test_every_exception_is_public_and_in_the_tree():
    assert all(issubclass(getattr(wool, name), wool.WoolError) for name in EXCEPTIONS)
    errors, abc = importlib.import_module("wool.exceptions"), importlib.import_module("wool.abc")
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, wool.WoolError)
    }
    assert defined - EXCEPTIONS <= set(abc.__all__)


# Importing


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT.anchor)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    code = "import json, sys; {}; print(json.dumps([*sys.modules]))"
    modules = set(json.loads(run(code.format("import wool"))))
    added = modules - set(json.loads(run(code.format("pass"))))
    heavy = {"asyncio", "cloudpickle", "dill", "pluggy", "socket", "ssl", "uvloop"}
    assert "wool" in added
    assert added & heavy == set()


def test_whoever_imports_msgspec_does_so_without_typing_extensions():
    """Each of these packages may be the first: see `wool._msgspec`."""
    core = ROOT / "wool-core" / "src"
    users = {
        ".".join(path.relative_to(core).with_suffix("").parts)
        for path in core.rglob("*.py")
        if "\nimport msgspec" in path.read_text()
    }
    assert "wool._protocol.frames" in users
    for code in [f"import {user}" for user in sorted(users)] + ["import wool; wool.WorkerPool"]:
        assert run(f"{code}; import sys; print('typing_extensions' in sys.modules)") == "False\n"


# Distribution


def test_entry_points():
    for (package, group), expected in ENTRY_POINTS.items():
        ours = [
            point
            for point in importlib.metadata.entry_points(group=group)
            if point.dist is not None and point.dist.name == package
        ]
        assert {point.name for point in ours} == expected
        assert all(importlib.util.find_spec(point.value) for point in ours)


def test_workers_and_callers_tell_the_version_that_is_published():
    assert importlib.metadata.version("wool-core") == VERSION


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_is_complete(package: Path):
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == package.name
    assert importlib.metadata.version(package.name) == project["version"]
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (package / "README.md").exists()
    assert list(package.glob("src/*/py.typed"))


def test_every_package_is_a_member_of_the_workspace():
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    assert sorted(workspace["members"]) == [package.name for package in PACKAGES]


# What is kept in the repository says nothing of where it was made


def kept_files() -> Iterator[Path]:
    """Yields the files of the repository: all that .gitignore does not name."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = [".git", *(line for line in lines if line and not line.startswith("#"))]
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name for name in folders if not any(fnmatch.fnmatch(name, p) for p in ignored)
        ]
        for name in files:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                yield Path(folder, name)


def test_no_lock_files():
    names = {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "pdm.lock"}
    assert [path for path in kept_files() if path.name in names] == []
    assert {"uv.lock", "pylock.toml"} <= set((ROOT / ".gitignore").read_text().split())


def test_no_registry_and_no_machine_path():
    dot = re.escape(".")
    hosts = [rf"py{'pi'}{dot}\w", f"python{'hosted'}", f"npm{'js'}{dot}"]
    options = [f"{name}[-_]{word}" for name in ("index", "registry") for word in ("url", "host")]
    paths = [f"{re.escape(str(place))}/" for place in (ROOT, Path.home()) if len(place.parts) > 1]
    forbidden = re.compile("|".join([*hosts, *options, *paths]), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in kept_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []
