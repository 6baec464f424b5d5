"""Settings: which source counts, which file is read, and what reaches a worker."""

from __future__ import annotations

import marshal
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from unit.settingskit import SECRET, Colour, Options, only_own, read, refused, write
from wool._settings.model import TABLES, Core, Tls, settings_of
from wool._settings.sending import dump, load
from wool._settings.settings import Settings, Value
from wool._settings.sources import variable

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


# Which source counts


def test_defaults() -> None:
    """Nobody asks for more names of back-ends than those of Wool's own."""
    variables = {"WOOL_GRPC__RETRIES": "1"}
    settings = Settings.read(only_own, variables=variables, folder=Path("/"))
    core, origins = settings.core()
    assert core == Core()
    assert set(origins.values()) == {"default"}
    assert settings.get("serializer") == Value("cloudpickle", "default")
    assert settings.options("tls", Tls) == (Tls(), dict.fromkeys(settings_of(Tls), "default"))
    assert settings.file is None


def test_each_source_and_its_origin(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [tool.wool]
        transport = "ws"
        size = 2
        shutdown_timeout = 5
        [tool.wool.grpc]
        retries = 1
        keepalive = 2
    """,
    )
    settings = read(tmp_path, WOOL_TRANSPORT="grpc", WOOL_SIZE="3", WOOL_GRPC__RETRIES="2")
    core, origins = settings.core(size=4, concurrency=None)
    assert (core.transport, core.size, core.shutdown_timeout) == ("grpc", 4, 5.0)
    assert type(core.shutdown_timeout) is float
    assert origins["transport"] == "environment variable WOOL_TRANSPORT"
    assert origins["size"] == "argument"
    assert origins["shutdown_timeout"] == f"{path} [tool.wool]"
    assert origins["concurrency"] == "default"
    options, origins = settings.options("grpc", Options, {"mode": "safe"})
    assert options == Options(keepalive=2.0, retries=2, mode="safe")
    assert origins["keepalive"] == f"{path} [tool.wool.grpc]"
    assert origins["retries"] == "environment variable WOOL_GRPC__RETRIES"
    assert (origins["mode"], origins["compress"]) == ("argument", "default")


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool]\nsize = 2")
    settings = read(tmp_path, WOOL_SIZE="", WOOL_CONFIG="", WOOL_NONSENSE="", WOOL_GRPC__X="")
    assert settings.get("size").value == 2
    assert settings.options("grpc", Options)[0] == Options()


# Which file


def test_the_nearest_file_counts_alone(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool]\nsize = 2")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert read(inner).get("size").value == 2
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert read(inner).get("size").value is None


def test_a_file_named_by_the_environment(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool]\nsize = 2")
    other = tmp_path / "other.toml"
    other.write_text("[tool.wool]\nsize = 3\n")
    for named in ("other.toml", str(other)):
        settings = read(tmp_path, WOOL_CONFIG=named)
        assert settings.get("size") == Value(3, f"{other} [tool.wool]")
    assert read(tmp_path, WOOL_CONFIG=os.devnull).get("size").value is None


def test_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text("[tool.wool.tls]\nca = '~/ca.pem'\n")
    settings = read(WOOL_CONFIG="~/mine.toml")
    assert settings.options("tls", Tls)[0].ca == tmp_path / "ca.pem"


def test_a_file_that_says_nothing_of_wool_is_not_parsed(tmp_path: Path) -> None:
    write(tmp_path, "this is [ not TOML")
    code = """
        import sys
        from wool._settings.settings import Settings
        Settings.read(list)
        assert "tomllib" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=tmp_path)


def test_importing_wool_reads_no_settings(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool]\nnonsense = 1")
    code = """
        import sys, wool, wool.plugins, wool.abc
        assert not [name for name in sys.modules if name.startswith("wool._settings")]
    """
    environment = {**os.environ, "WOOL_NONSENSE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[tool.wool", "is not valid TOML: Expected ']'"),
        ("# wool\nx = \xff", "is not valid TOML: 'utf-8' codec"),
        ("[[tool.wool]]", "wool must be a table of its own, [tool.wool]"),
        ("[tool]\nwool = 'x'", "wool must be a table of its own, [tool.wool]"),
    ],
)
def test_a_malformed_file(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(text.encode("latin-1"))
    message = refused(tmp_path)
    assert message.startswith(f"{path}")
    assert part in message


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("none.toml", None, "WOOL_CONFIG=none.toml: {path} cannot be read: No such file"),
        ("folder", "", "WOOL_CONFIG=folder: {path} cannot be read: Is a directory"),
        ("x.toml", "size = 3", "WOOL_CONFIG=x.toml: {path} has no table [tool.wool]"),
        ("x.toml", "# wool", "WOOL_CONFIG=x.toml: {path} has no table [tool.wool]"),
        ("x.toml", "wool = [", "WOOL_CONFIG=x.toml: {path} is not valid TOML"),
        ("x.toml", "tool.wool = 1", "WOOL_CONFIG=x.toml: {path}: wool must be a table"),
    ],
)
def test_a_named_file_that_is_of_no_use(
    name: str, text: str | None, part: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if text:
        path.write_text(text)
    elif text is not None:
        path.mkdir()
    message = refused(tmp_path, WOOL_CONFIG=name)
    assert message.startswith(part.format(path=path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_must_not_be_read(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool]").chmod(0)
    assert "cannot be read: Permission denied" in refused(tmp_path)


# To a worker


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(
            keepalive=1.5,
            retries=0,
            compress=True,
            mode="safe",
            colour=Colour.BLUE,
            hosts=("a", "b"),
            ports=(1, 2),
            labels=frozenset("xy"),
            where=Path("/a/b"),
            url=SECRET,
        ),
        Core(transport="ws", size=4),
        Tls(ca=Path("/ca.pem"), name="wool"),
    ],
)
def test_options_survive_the_way_to_a_worker(options: Any) -> None:
    sent = marshal.loads(marshal.dumps(dump(options)))
    assert load(type(options), sent) == options


# The page


def rows() -> dict[str, tuple[str, str, str]]:
    """Returns the tables of keys in the page: by key, its variable, its default, its meaning."""
    lines = re.findall(
        r"^\| `([\w.]+)` \| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE
    )
    return {key: (name, default, meaning) for key, name, default, meaning in lines}


def test_the_page_has_every_key() -> None:
    expected: dict[str, tuple[str, str, str]] = {}
    for table, options in {"": Core, **TABLES}.items():
        for setting in settings_of(options).values():
            default = (
                ""
                if setting.default is None
                else f"`{msgspec.json.encode(setting.default).decode()}`"
            )
            key = f"{table}.{setting.name}" if table else setting.name
            expected[key] = (variable(table, setting.name), default, setting.description)
    assert rows() == expected


def test_the_examples_of_the_page_are_valid(tmp_path: Path) -> None:
    found = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    for text in found:
        assert tomllib.loads(text)
        (tmp_path / "pyproject.toml").write_text(text)
        read(tmp_path).options("grpc", Options)
