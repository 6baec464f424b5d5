"""The command line: what it prints, its exit codes, and the pages that quote it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import wool.plugins
from support.fixtures import write_distribution
from wool._plugins import lookup
from wool._plugins.lookup import Lookup
from wool.cli import main
from wool.cli.group import COMMANDS
from wool.plugins import TransportPlugin, hookimpl

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "ghp-do-not-print-me"

pytestmark = pytest.mark.usefixtures("unset")


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, arguments, env=variables, catch_exceptions=False)


def config(**variables: str) -> dict[str, Any]:
    result = run("config", "--json", **variables)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def plugins(*arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
    result = run("plugins", "--json", *arguments, **variables)
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


@dataclass(frozen=True)
class Options:
    speed: int = 3
    routes: tuple[str, ...] = ()
    fancy: bool = False
    key: str = field(default="", repr=False)


@pytest.fixture
def pigeon() -> Iterator[None]:
    """A transport with options, one of them secret."""

    class Plugin:
        @hookimpl
        def wool_transports(self) -> Any:
            yield TransportPlugin(name="pigeon", api=1, options=Options, factory=lambda o: o)

    with wool.plugins.register(Plugin()):
        yield


# The command itself


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    for name, (_, help) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(help)}$", result.stdout, re.MULTILINE)
    assert "Exit codes: 0" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert COMMANDS[name][1] in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_a_command_that_is_misspelt() -> None:
    result = run("wrker")
    assert result.exit_code == 2
    assert "Did you mean one of: 'worker', 'workers'?" in result.output


def test_help_imports_no_command() -> None:
    code = """
import sys
from wool.cli import main
try:
    main(["--help"], prog_name="wool")
except SystemExit:
    pass
loaded = {name for name in sys.modules if name.startswith("wool")}
assert loaded == {"wool", "wool._namesake", "wool.cli", "wool.cli.group", "wool.exceptions"}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: wool ")


def test_version() -> None:
    result = run("--version")
    assert re.fullmatch(r"wool-core \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+\S*\)\n", result.stdout)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["config", "--nonsense"], "No such option"),
        (["plugins", "extra"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], part: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert part in result.stderr
    assert result.stdout == ""


def test_an_error_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.wool]\n"a\\nb" = 1\n')
    for name in ("config", "plugins"):
        done = subprocess.run(
            [sys.executable, "-m", "wool.cli", name], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(
            f"wool: {tmp_path}/pyproject.toml [tool.wool] has no setting or table"
        )
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["", "..", "-x", "a/b", "a\nb", "x" * 65])
def test_names_that_no_certificate_can_have(name: str) -> None:
    assert run("certs", "authority").exit_code == 0
    result = run("certs", "issue", "--", name)
    assert result.exit_code == 1
    assert "cannot be the name of a file and of a certificate" in result.stderr
    assert sorted(os.listdir("certs")) == ["ca-key.pem", "ca.pem"]


@pytest.mark.parametrize(
    "host", ["", "a:80", "http://a", "a b", "999.1.1.1", "10.0.0.0/8", "ä.example"]
)
def test_hosts_that_no_certificate_can_name(host: str) -> None:
    assert run("certs", "authority").exit_code == 0
    result = run("certs", "issue", "one", host)
    assert result.exit_code == 1
    assert f"{host!r} is no host name or address" in result.stderr


def test_a_token_file_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff" * 40)
    result = run("workers", "ws://127.0.0.1:1", "--token-file", "token")
    assert result.exit_code == 1
    assert result.stderr == "wool: --token-file: token holds no token, but other bytes\n"
    result = run("workers", "ws://127.0.0.1:1", WOOL_TOKEN_FILE="nowhere")
    assert (
        result.stderr
        == "wool: WOOL_TOKEN_FILE: nowhere cannot be read: No such file or directory\n"
    )


def test_completion() -> None:
    asked = {"_WOOL_COMPLETE": "bash_complete", "COMP_WORDS": "wool doc", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "wool.cli"]
    done = subprocess.check_output(command, env={**os.environ, **asked}, text=True)
    assert done.split() == ["plain,doctor"]


# wool config


def test_config_without_anything() -> None:
    document = config()
    assert (document["file"], document["problems"]) == (None, [])
    settings = document["settings"]
    assert settings["transport"] == {"value": "unix", "origin": "default"}
    assert settings["serializer"] == {"value": "cloudpickle", "origin": "default"}
    assert settings["tls.ca"] == {"value": None, "origin": "default"}
    assert {value["origin"] for value in settings.values()} == {"default"}
    assert not run("config").stdout.startswith("File")


def test_config_names_each_origin(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.wool]\nsize = 2\n[tool.wool.tls]\nca = 'ca.pem'\n")
    document = config(WOOL_LOOP="asyncio")
    assert document["file"] == str(path)
    settings = document["settings"]
    assert settings["size"] == {"value": 2, "origin": f"{path} [tool.wool]"}
    assert settings["tls.ca"] == {
        "value": str(tmp_path / "ca.pem"),
        "origin": f"{path} [tool.wool.tls]",
    }
    assert settings["loop"] == {"value": "asyncio", "origin": "environment variable WOOL_LOOP"}
    text = run("config", WOOL_LOOP="asyncio").stdout
    assert text.startswith(f"File: {path}\n")
    assert re.search(r"^loop +asyncio +environment variable WOOL_LOOP$", text, re.MULTILINE)
    assert re.search(r"^concurrency +- +default$", text, re.MULTILINE)


@pytest.mark.usefixtures("pigeon")
def test_config_has_the_options_in_use() -> None:
    variables = {
        "WOOL_TRANSPORT": "pigeon",
        "WOOL_PIGEON__ROUTES": "a,b",
        "WOOL_PIGEON__FANCY": "1",
        "WOOL_PIGEON__KEY": SECRET,
    }
    settings = config(**variables)["settings"]
    assert settings["pigeon.speed"] == {"value": 3, "origin": "default"}
    assert settings["pigeon.routes"]["value"] == ["a", "b"]
    assert settings["pigeon.key"] == {
        "value": "********",
        "origin": "environment variable WOOL_PIGEON__KEY",
    }
    text = run("config", **variables).stdout
    assert re.search(r"^pigeon\.routes +a, b ", text, re.MULTILINE)
    assert re.search(r"^pigeon\.fancy +true ", text, re.MULTILINE)
    assert SECRET not in text
    assert "pigeon.speed" not in config()["settings"]


@pytest.mark.usefixtures("pigeon")
def test_config_refuses_a_wrong_option() -> None:
    result = run("config", WOOL_TRANSPORT="pigeon", WOOL_PIGEON__SPEED="fast")
    assert result.exit_code == 1
    assert "speed must be a whole number, not 'fast'" in result.stderr
    assert run("config", WOOL_PIGEON__SPEED="fast").exit_code == 0


def test_config_shows_no_token(tmp_path: Path) -> None:
    file = str(tmp_path / "token")
    for form in ([], ["--json"]):
        result = run("config", *form, WOOL_TOKEN=SECRET, WOOL_TOKEN_FILE=file)
        assert result.exit_code == 0
        assert SECRET not in result.output
        assert "********" in result.stdout
        assert file in result.stdout


def test_config_of_what_is_not_installed() -> None:
    result = run("config", WOOL_SERIALIZER="pidgin")
    assert result.exit_code == 1
    assert "environment variable WOOL_SERIALIZER" in result.stdout
    says = "There is no serializer 'pidgin'."
    assert result.stderr.startswith(f"wool: environment variable WOOL_SERIALIZER: {says}")
    result = run("config", "--json", WOOL_SERIALIZER="pidgin")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"][0] in result.stderr


# wool plugins


def test_plugins_of_ours() -> None:
    rows = plugins()
    assert rows["unix"] == {
        "kind": "transport",
        "name": "unix",
        "distribution": "wool-core",
        "version": wool_version(),
        "module": "wool._transports.unix",
        "active": True,
        "origin": "default",
        "usable": None,
        "milliseconds": None,
        "problem": None,
    }
    assert (rows["memory"]["active"], rows["memory"]["origin"]) == (False, None)
    text = run("plugins").stdout
    assert re.search(r"^transport +unix +wool-core .* +yes \(default\)$", text, re.MULTILINE)
    assert re.search(r"^transport +memory +wool-core .* +no$", text, re.MULTILINE)


def wool_version() -> str:
    from importlib.metadata import version

    return version("wool-core")


def test_plugins_checked() -> None:
    rows = plugins("--check")
    for name in ("unix", "memory", "cloudpickle"):
        assert rows[name]["usable"] is True
        assert rows[name]["milliseconds"] >= 0
    assert re.search(
        r"^transport +unix .* ok, \d+ ms$", run("plugins", "--check").stdout, re.MULTILINE
    )


def test_a_plugin_in_use_that_is_not_installed() -> None:
    text = run("plugins", WOOL_TRANSPORT="pigeon").stdout
    assert re.search(r"^transport +pigeon +- +- +yes \(environment", text, re.MULTILINE)
    assert "There is no transport 'pigeon'." in text
    result = run("plugins", "--check", WOOL_TRANSPORT="pigeon")
    assert result.exit_code == 1
    assert re.search(r"^transport +pigeon .* not usable$", result.stdout, re.MULTILINE)


@pytest.mark.usefixtures("distributions")
def test_what_is_wrong_with_plugins_of_others() -> None:
    rows = plugins()
    assert "Uninstall the one you do not want" in rows["pigeon"]["problem"]
    assert (rows["ears"]["kind"], rows["ears"]["origin"]) == ("observer", "installed")
    assert not [name for name in sys.modules if name.startswith("acme")]
    result = run("plugins", "--check", "--json")
    assert result.exit_code == 1
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["clumsy"]["problem"] == (
        "'clumsy' (from acme 1.2) cannot be used: ZeroDivisionError: division by zero. Upgrade or "
        "reinstall it, or choose another one."
    )
    assert rows["needy"]["usable"] is True, "nobody has configured what nobody uses"
    assert rows["ears"]["usable"] is True
    text = run("plugins", "--check", WOOL_TRANSPORT="needy").stdout
    assert "needy needs a value for 'roof': set roof in [tool.wool.needy], or the" in text


PLUGINS = """
from dataclasses import dataclass
from wool.plugins import TransportPlugin, hookimpl

@dataclass(frozen=True)
class Nothing:
    pass

@dataclass(frozen=True)
class Needy:
    roof: str

@hookimpl
def wool_transports():
    yield TransportPlugin(name="clumsy", api=1, options=Nothing, factory=lambda options: 1 / 0)
    yield TransportPlugin(name="needy", api=1, options=Needy, factory=lambda options: None)

@hookimpl
def wool_call_started():
    pass
"""


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two distributions that nobody has read of before."""
    site = tmp_path / "site"
    for name, plugins in {"acme": ["clumsy", "needy", "pigeon"], "birds": ["pigeon"]}.items():
        observers = {"ears": "acme_plugins"} if name == "acme" else {}
        groups = {
            "wool.transports": dict.fromkeys(plugins, "acme_plugins"),
            "wool.plugins": observers,
        }
        write_distribution(site, name, "1.2", groups)
    (site / "acme_plugins.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(lookup, "process", cache(Lookup))
    yield
    sys.modules.pop("acme_plugins", None)


def test_an_extra_nobody_asked_for_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    result = run("plugins", "--check", "--json")
    row = next(row for row in json.loads(result.stdout) if row["name"] == "dill")
    assert 'pip install "wool-core[dill]"' in row["problem"]
    assert result.exit_code == 0
    assert run("plugins", "--check", WOOL_SERIALIZER="dill").exit_code == 1


# The pages

FENCE = re.compile(r"^```(toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sessions() -> Iterator[Any]:
    """Yields the commands of the pages with their output, and the TOML file they stand below."""
    for page in (DOCS / "settings.md", DOCS / "plugins.md"):
        file = ""
        for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "toml":
                file = body
                continue
            for session in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, _, output = session.partition("\n")
                yield pytest.param(file, command, output, id=f"{page.name}: {command}")


@pytest.mark.parametrize(("file", "command", "output"), list(sessions()))
def test_a_session_of_a_page(file: str, command: str, output: str, tmp_path: Path) -> None:
    """An ellipsis in the output stands for anything; a line of it, for any number of lines.

    How wide columns are depends on what else is installed.
    """
    bin = tmp_path / "bin"
    bin.mkdir()
    script = bin / "wool"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wool.cli "$@"\n')
    script.chmod(0o755)
    if "entry-points" not in file:
        (tmp_path / "pyproject.toml").write_text(file.replace('"grpc"', '"unix"'))
    done = subprocess.run(
        ["sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"},
    )
    expected, printed = (re.sub(" {2,}", "  ", text) for text in (output, done.stdout))
    pattern = re.sub(r"^…\\\n", "(?:.*\n)*", re.escape(expected), flags=re.MULTILINE)
    pattern = pattern.replace("…", ".*")
    assert re.fullmatch(pattern, printed), done.stdout
