"""Distributions of third parties in an environment of their own: good, bad, slow and in the way.

Real wheels, a real installer without a network, and real processes. Each module of a plug-in leaves
a mark when it is imported, in whatever process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MARK = """
import os, pathlib
pathlib.Path(os.environ["MARKS"], __name__).touch()
"""

TRANSPORT = """
from dataclasses import dataclass
from wool.plugins import TransportPlugin, hookimpl

@dataclass(frozen=True)
class Options:
    pass

@hookimpl
def wool_transports():
    yield TransportPlugin(name="{name}", api={api}, options=Options, factory=lambda options: None)
"""

SLOW = """
import time
from dataclasses import dataclass
from wool.plugins import SerializerPlugin, hookimpl

time.sleep(0.3)

@dataclass(frozen=True)
class Options:
    pass

def make(options):
    from wool._backends.cloudpickle import CloudpickleSerializer

    return CloudpickleSerializer()

@hookimpl
def wool_serializers():
    yield SerializerPlugin(name="slow", api=1, options=Options, factory=make)
"""

HOOKY = """
from wool.plugins import hookimpl

@hookimpl
def wool_carriers():
    return []
"""

COURIER = """
from dataclasses import dataclass
from wool.plugins import TransportPlugin, hookimpl

@dataclass(frozen=True)
class Options:
    note: str = "none"

def make(options):
    from wool._transports.unix import UnixTransport

    (pathlib.Path(os.environ["MARKS"]) / f"note {options.note} in {os.getpid()}").touch()

    class Courier(UnixTransport):
        async def connect(self, address, *, credentials, timeout):
            _, _, path = address.partition("://")
            return await super().connect(f"unix://{path}", credentials=credentials, timeout=timeout)

        async def listen(self, address, *, credentials):
            scheme, _, path = address.partition("://")
            listener = await super().listen(f"unix://{path}", credentials=credentials)
            listener.address = f"{scheme}://{path}"
            return listener

    return Courier(options)

@hookimpl
def wool_transports():
    yield TransportPlugin(
        name="courier",
        api=1,
        options=Options,
        factory=make,
        capabilities=frozenset({"local", "unix"}),
    )
"""

PLAIN = """
from dataclasses import dataclass
from wool.plugins import SerializerPlugin, hookimpl

@dataclass(frozen=True)
class Options:
    pass

def make(options):
    from wool._backends.cloudpickle import CloudpickleSerializer

    return CloudpickleSerializer()

@hookimpl
def wool_serializers():
    yield SerializerPlugin(name="plain", api=1, options=Options, factory=make)
"""

BLIND = "raise OSError('cannot see')\n"

WATCHING = """
from wool.plugins import hookimpl

@hookimpl
def wool_call_started(call):
    pass
"""


@dataclass(frozen=True)
class Distribution:
    """What a wheel is made of: of its entry points the group, and the code of each by name."""

    name: str
    version: str
    group: str
    plugins: dict[str, str] = field(default_factory=dict)

    def module(self, plugin: str) -> str:
        return f"{self.name.replace('-', '_')}_{plugin}"

    def wheel(self, folder: Path) -> Path:
        """Builds the wheel."""
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        points = [f"{plugin} = {self.module(plugin)}" for plugin in self.plugins]
        files = {f"{self.module(plugin)}.py": MARK + code for plugin, code in self.plugins.items()}
        files |= {
            f"{stem}.dist-info/METADATA": (
                f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
            ),
            f"{stem}.dist-info/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
            f"{stem}.dist-info/entry_points.txt": "\n".join([f"[{self.group}]", *points, ""]),
        }
        record = [f"{name},{_digest(text)},{len(text.encode())}" for name, text in files.items()]
        record.append(f"{stem}.dist-info/RECORD,,\n")
        files[f"{stem}.dist-info/RECORD"] = "\n".join(record)
        path = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.decode().rstrip('=')}"


def transport(name: str, api: int = 1) -> str:
    return TRANSPORT.replace("{name}", name).replace("{api}", str(api))


INSTALLED = [
    Distribution("acme-broken", "1.0", "wool.transports", {"broken": "1 / 0"}),
    Distribution("acme-lacking", "1.1", "wool.serializers", {"lacking": "import no_such_library"}),
    Distribution("acme-birds", "1.2", "wool.transports", {"pigeon": transport("pigeon")}),
    Distribution("roof-birds", "3.4", "wool.transports", {"pigeon": transport("pigeon")}),
    Distribution("acme-old", "0.9", "wool.transports", {"oldie": transport("oldie", api=0)}),
    Distribution("acme-slow", "2.0", "wool.serializers", {"slow": SLOW}),
    Distribution("acme-hooky", "1.3", "wool.discoveries", {"hooky": HOOKY}),
    Distribution("acme-courier", "5.0", "wool.transports", {"courier": COURIER}),
    Distribution("acme-plain", "5.1", "wool.serializers", {"plain": PLAIN}),
]
OBSERVERS = [
    Distribution("acme-blind", "0.1", "wool.plugins", {"blind": BLIND}),
    Distribution("acme-watching", "0.2", "wool.plugins", {"watching": WATCHING}),
]

PROGRAM = """
import asyncio, json, sys
import wool

@wool.routine
async def add(x, y):
    return x + y

async def main():
    async with wool.WorkerPool(size=1, **json.loads(sys.argv[1])) as pool:
        (worker,) = pool.workers
        scheme, _, _ = worker.address.partition(":")
        print(await add(1, 2), scheme.partition("+")[0], *worker.serializers)

try:
    asyncio.run(main())
except wool.WoolError as error:
    print(f"{type(error).__name__}: {error}")
"""


class Scratch:
    """A virtual environment, with what is installed here and what is installed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = folder / "env"
        self.python = self.env / "bin" / "python"
        self.marks = folder / "marks"
        self.marks.mkdir()
        venv.EnvBuilder(with_pip=False, symlinks=True).create(self.env)
        site = self.env / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        here = sysconfig.get_paths()["purelib"]
        (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    def install(self, distributions: list[Distribution], *options: str) -> None:
        """Installs wheels of distributions without a network."""
        wheels = [str(distribution.wheel(self.folder)) for distribution in distributions]
        arguments = ["install", "--quiet", "--no-index", "--no-deps", *options, *wheels]
        beside = Path(sys.executable).with_name("uv")
        uv = str(beside) if beside.exists() else shutil.which("uv")
        if uv:
            command = [uv, "pip", *arguments, "--offline", "--python", str(self.python)]
        else:
            command = [sys.executable, "-m", "pip", "--python", str(self.python), *arguments]
        subprocess.run(command, check=True, timeout=50)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the environment's interpreter."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env={**os.environ, **variables, "MARKS": str(self.marks)},
            capture_output=True,
            text=True,
            timeout=50,
        )

    def open_pool(self, *, settings: dict[str, str] | None = None, **arguments: Any) -> str:
        """Runs the program; returns what it prints, which must be one line."""
        done = self.run("-c", PROGRAM, json.dumps(arguments), **(settings or {}))
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = done.stdout.splitlines()
        return line

    def imported(self) -> set[str]:
        """Returns the marks that were left since this was last asked, and removes them."""
        marks = {mark.name for mark in self.marks.iterdir()}
        for mark in marks:
            (self.marks / mark).unlink()
        return marks


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("scratch"))
    scratch.install(INSTALLED)
    return scratch


@pytest.fixture
def scratch(installed: Scratch) -> Iterator[Scratch]:
    """The environment, with no marks and no settings left by another test."""
    installed.imported()
    yield installed
    (installed.folder / "pyproject.toml").unlink(missing_ok=True)


def rows(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(done.stdout)
    return {(row["name"], row["distribution"]): row for row in found}


# Those that nobody has chosen


def test_importing_wool_imports_no_plugin(scratch: Scratch) -> None:
    done = scratch.run("-c", "import wool, wool.plugins, wool.abc; wool.WorkerPool(size=1)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert scratch.imported() == set()


@pytest.mark.parametrize("name", ["unix", "memory"])
def test_those_not_chosen_cost_nothing(name: str, scratch: Scratch) -> None:
    assert scratch.open_pool(transport=name) == f"3 {name} cloudpickle"
    assert scratch.imported() == set()


def test_wrong_settings_of_those_not_chosen_cost_nothing(scratch: Scratch) -> None:
    text = "[tool.wool.broken]\nnonsense = 1\n"
    (scratch.folder / "pyproject.toml").write_text(text)
    assert scratch.open_pool(settings={"WOOL_OLDIE__X": "1"}) == "3 unix cloudpickle"
    assert scratch.imported() == set()


# Those that cannot be used

BAD: list[Any] = [
    (
        {"transport": "broken"},
        [
            "acme-broken 1.0 (module acme_broken_broken)",
            "ZeroDivisionError",
            "Upgrade or reinstall",
        ],
        {"acme_broken_broken"},
    ),
    (
        {"serializer": "lacking"},
        ["acme-lacking 1.1", "ModuleNotFoundError", "Install what provides the module 'no_such_l"],
        {"acme_lacking_lacking"},
    ),
    (
        {"transport": "pigeon"},
        [
            "acme-birds 1.2 (module acme_birds_pigeon)",
            "roof-birds 3.4 (module roof_birds_pigeon)",
            "pip uninstall acme-birds or pip uninstall roof-birds",
        ],
        set(),
    ),
    (
        {"transport": "oldie"},
        ["acme-old 0.9", "version 0 of the plug-in interface", "has version 1", "Upgrade acme-old"],
        {"acme_old_oldie"},
    ),
    (
        {"discovery": "hooky"},
        ["acme-hooky 1.3", "wool_carriers", "Upgrade wool-core if the plug-in is newer"],
        {"acme_hooky_hooky"},
    ),
]


@pytest.mark.parametrize(("choice", "parts", "imported"), BAD)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_choosing_one_that_cannot_be_used(
    choice: dict[str, str], parts: list[str], imported: set[str], way: str, scratch: Scratch
) -> None:
    if way == "argument":
        line = scratch.open_pool(**choice)
    else:
        settings = {f"WOOL_{key.upper()}": value for key, value in choice.items()}
        line = scratch.open_pool(settings=settings)
    assert line.startswith("PluginError: ")
    assert [part for part in parts if part not in line] == []
    assert scratch.imported() == imported


def test_choosing_one_that_does_not_exist(scratch: Scratch) -> None:
    line = scratch.open_pool(transport="currier")
    assert line.startswith("ConfigurationError: There is no transport 'currier'. Did you mean")
    assert "'courier'" in line
    assert scratch.imported() == set()


# Those that work


def test_a_serializer_of_a_third_party(scratch: Scratch) -> None:
    assert scratch.open_pool(serializer="plain") == "3 unix plain"
    assert scratch.imported() == {"acme_plain_plain"}


def test_a_slow_one_is_paid_for_where_it_is_chosen(scratch: Scratch) -> None:
    done = scratch.run("-m", "wool.cli", "config", WOOL_SERIALIZER="slow")
    assert done.returncode == 0
    assert scratch.imported() == {"acme_slow_slow"}


def test_a_transport_of_a_third_party(scratch: Scratch) -> None:
    text = "[tool.wool]\ntransport = 'courier'\n[tool.wool.courier]\nnote = 'fragile'\n"
    (scratch.folder / "pyproject.toml").write_text(text)
    assert scratch.open_pool() == "3 courier cloudpickle"
    marks = scratch.imported()
    assert "acme_courier_courier" in marks
    notes = {mark.partition(" in ")[0] for mark in marks - {"acme_courier_courier"}}
    assert notes == {"note fragile"}
    assert len(marks) == 3, "the caller and its worker make the transport once each"


def test_an_argument_precedes_all(scratch: Scratch) -> None:
    (scratch.folder / "pyproject.toml").write_text("[tool.wool]\ntransport = 'broken'\n")
    settings = {"WOOL_TRANSPORT": "oldie"}
    assert scratch.open_pool(settings=settings, transport="courier").startswith("3 courier")


# The command line


def test_the_list_imports_none(scratch: Scratch) -> None:
    done = scratch.run("-m", "wool.cli", "plugins", "--json", WOOL_TRANSPORT="courier")
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done)
    for distribution in INSTALLED:
        for name in distribution.plugins:
            row = found[name, distribution.name]
            assert row["version"] == distribution.version
            assert row["module"] == distribution.module(name)
            assert row["active"] == (name == "courier")
            assert (row["problem"] is not None) == (name == "pigeon")
    assert found["courier", "acme-courier"]["origin"] == "environment variable WOOL_TRANSPORT"
    assert scratch.imported() == set()


def test_the_check_reports_all(scratch: Scratch) -> None:
    done = scratch.run("-m", "wool.cli", "plugins", "--check", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = rows(done)
    usable = {name for (name, _), row in found.items() if row["usable"]}
    assert {"unix", "memory", "cloudpickle", "courier", "plain", "slow"} <= usable
    for choice, parts, _ in BAD:
        (name,) = choice.values()
        for (other, _), row in found.items():
            if other == name:
                assert row["usable"] is False
                assert [part for part in parts if part not in row["problem"]] == []
    assert found["slow", "acme-slow"]["milliseconds"] >= 300
    modules = {d.module(name) for d in INSTALLED for name in d.plugins}
    imported = {mark for mark in scratch.imported() if not mark.startswith("note")}
    assert imported == modules - {"acme_birds_pigeon", "roof_birds_pigeon"}


def test_the_check_in_words(scratch: Scratch) -> None:
    done = scratch.run("-m", "wool.cli", "plugins", "--check")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("The transport 'pigeon' is provided by") == 1
    assert done.stdout.count("not usable") == 6
    assert "Traceback" not in done.stdout


def test_the_check_passes_without_the_bad_ones(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.install(INSTALLED[-2:])
    done = scratch.run("-m", "wool.cli", "plugins", "--check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Observers


def test_observers(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.install(OBSERVERS)
    done = scratch.run("-m", "wool.cli", "plugins", "--json")
    assert done.returncode == 0
    for name in ("blind", "watching"):
        row = rows(done)[name, f"acme-{name}"]
        assert (row["kind"], row["active"], row["origin"]) == ("observer", True, "installed")
    assert scratch.imported() == set()
    done = scratch.run("-m", "wool.cli", "plugins", "--check", "--json")
    assert done.returncode == 1
    assert (
        "acme-blind 0.1 (module acme_blind_blind)" in rows(done)["blind", "acme-blind"]["problem"]
    )
    assert rows(done)["watching", "acme-watching"]["usable"] is True
    code = """
        from wool._plugins import lookup
        for _ in range(2):
            print([plugin.module for plugin in lookup.companions([]) if plugin.listens])
    """
    done = scratch.run("-c", textwrap.dedent(code))
    assert done.stdout.splitlines() == ["['acme_watching_watching']"] * 2
    assert done.stderr.count("cannot be imported: OSError: cannot see.") == 1
    assert "Traceback" not in done.stderr
