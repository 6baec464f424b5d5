"""Values: what each becomes, and every message about one that is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from unit.settingskit import Colour, Options, option, option_refused, read, refused, write
from wool._settings.model import Tls
from wool._settings.values import describe
from wool.exceptions import ConfigurationError, PluginError

SIZE = "a whole number of at least 0 or a list, each item a whole number of at least 0"

# What a value becomes


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("keepalive", "2", 2.0),
        ("keepalive", " 1e3 ", 1000.0),
        ("retries", "0", 0),
        ("compress", "true", True),
        ("compress", "0", False),
        ("mode", "safe", "safe"),
        ("colour", "blue", Colour.BLUE),
        ("hosts", "a, b,,c ", ("a", "b", "c")),
        ("hosts", "a", ("a",)),
        ("ports", "1,2", (1, 2)),
        ("labels", "x,y,x", frozenset("xy")),
        ("where", "/a/b", Path("/a/b")),
        ("where", "a/b", Path("/here/a/b")),
        ("url", "http://a, b", "http://a, b"),
    ],
)
def test_text_becomes_a_value(key: str, text: str, value: Any) -> None:
    assert option(key, Path("/here"), **{f"WOOL_GRPC__{key.upper()}": text}) == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("keepalive = 2", 2.0),
        ("compress = true", True),
        ("colour = 'blue'", Colour.BLUE),
        ("ports = [1, 2]", (1, 2)),
        ("labels = ['x']", frozenset("x")),
    ],
)
def test_toml_becomes_a_value(line: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path, f"[tool.wool.grpc]\n{line}")
    assert option(line.split(maxsplit=1)[0], tmp_path) == value


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool.tls]\nca = 'certs/ca.pem'\nkey = '/k.pem'")
    inner = tmp_path / "inner"
    inner.mkdir()
    tls, _ = read(inner, WOOL_TLS__CERT="cert.pem").options("tls", Tls)
    assert tls.ca == tmp_path / "certs" / "ca.pem"
    assert tls.key == Path("/k.pem")
    assert tls.cert == inner / "cert.pem"


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("size", "many", f"{SIZE}, not 'many'"),
        ("size", "-1", f"{SIZE}, not '-1'"),
        ("size", "2.5", f"{SIZE}, not '2.5'"),
        ("size", "x" * 200, f"{SIZE}, not '{'x' * 79}…"),
        ("cancel_grace", "nan", "a number of at least 0, not 'nan'"),
        ("loop", "trio", "one of 'asyncio', 'auto', 'uvloop', not 'trio'"),
        ("grpc__compress", "perhaps", "true or false, not 'perhaps'"),
        ("grpc__retries", "10", "a whole number of at least 0 and less than 10, not '10'"),
        ("grpc__colour", "grey", "one of 'red', 'blue', not 'grey'"),
        ("grpc__ports", "1,x", "a list, each item a whole number, not '1,x'"),
    ],
)
def test_a_wrong_text(key: str, text: str, words: str) -> None:
    name, refuses = f"WOOL_{key.upper()}", option_refused if "__" in key else refused
    setting = key.rpartition("__")[2]
    assert refuses(**{name: text}) == f"environment variable {name}: {setting} must be {words}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("transport = 1", "a string, not 1"),
        ("size = '4'", f"{SIZE}, not '4'"),
        ("size = true", f"{SIZE}, not True"),
        ("size = {a = 1}", f"{SIZE}, not {{'a': 1}}"),
        ("loop = []", "one of 'asyncio', 'auto', 'uvloop', not []"),
        ("grpc.hosts = 'a,b'", "a list, each item a string, not 'a,b'"),
        ("grpc.where = 1", "a path, not 1"),
        ("grpc.where = ''", "a path, not ''"),
    ],
)
def test_a_wrong_value(line: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"[tool.wool]\n{line}")
    table, _, key = line.split(maxsplit=1)[0].rpartition(".")
    refuses = option_refused if table else refused
    header = "[tool.wool.grpc]" if table else "[tool.wool]"
    assert refuses(tmp_path) == f"{path} {header}: {key} must be {words}"


def test_a_wrong_argument() -> None:
    settings = read()
    with pytest.raises(ConfigurationError, match=r"^size must be a whole .* 0, not '4'$"):
        settings.core(size="4")
    with pytest.raises(ConfigurationError, match=r"^loop must be one of .*, not 3$"):
        settings.get("loop", 3)
    with pytest.raises(ConfigurationError, match=r"^grpc has no option 'colours'$"):
        settings.options("grpc", Options, {"colours": 1})
    with pytest.raises(ConfigurationError, match=r"^Wool has no option 'sise'$"):
        settings.core(sise=1)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | str | None, "a whole number or a string"),
        (Annotated[int, msgspec.Meta(description="x", le=3)], "a whole number of at most 3"),
        (Annotated[float, msgspec.Meta(gt=0.5)], "a number greater than 0.5"),
        (dict[str, int], "a table, which only the file can have"),
        (Annotated[int, msgspec.Meta(ge=1048576)], "a whole number of at least 1048576"),
        (Annotated[int, msgspec.Meta(multiple_of=8)], "a whole number that is a multiple of 8"),
        (Annotated[str, msgspec.Meta(pattern="^a")], "a string that matches ^a"),
        (
            Annotated[list[str], msgspec.Meta(min_length=2, max_length=3)],
            "a list, each item a string of a length of at least 2 and of a length of at most 3",
        ),
        (set[bool], "a list, each item true or false"),
        (list[Path] | None, "a list, each item a path"),
        (bytes, "a value for BytesType"),
    ],
)
def test_words_for_types(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


# What is wrong with a class of options


def test_options_that_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "[tool.wool.grpc]\nkeepalive = 0.5")
    message = option_refused(tmp_path, WOOL_GRPC__RETRIES="1")
    assert message == (
        "The settings of grpc cannot be used: a keepalive of 0.5 with retries, at  "
        f"(keepalive from {path} [tool.wool.grpc], "
        "retries from environment variable WOOL_GRPC__RETRIES)"
    )


@pytest.mark.parametrize("error", [KeyError("oh"), SystemExit("oh"), AssertionError])
def test_options_whose_own_checks_fail(error: Any) -> None:
    @dataclass(frozen=True)
    class Broken:
        x: int = 1

        def __post_init__(self) -> None:
            raise error

    with pytest.raises(PluginError, match=r"^The options of grpc cannot be made: \w+: .* Repo"):
        read(WOOL_GRPC__X="2").options("grpc", Broken)


def test_a_value_that_is_required() -> None:
    @dataclass(frozen=True)
    class Needy:
        addresses: tuple[str, ...]
        password: str = field(repr=False)

    settings = read()
    with pytest.raises(ConfigurationError) as caught:
        settings.options("grpc", Needy)
    assert str(caught.value) == (
        "grpc needs a value for 'addresses': set addresses in [tool.wool.grpc], or the "
        "environment variable WOOL_GRPC__ADDRESSES"
    )
    with pytest.raises(ConfigurationError, match="'password': set the environment variable WOOL_G"):
        settings.options("grpc", Needy, {"addresses": ["a"]})
    made, _ = settings.options("grpc", Needy, {"addresses": ["a"], "password": "b"})
    assert made == Needy(("a",), "b")


class NoDataclass:
    pass


@dataclass(frozen=True)
class Unresolvable:
    x: Nowhere = 1  # type: ignore[name-defined]  # noqa: F821


@dataclass(frozen=True)
class Odd:
    x: str | Path = ""
    y: slice | None = None


@dataclass(frozen=True)
class Failing:
    x: list[str] = field(default_factory=lambda: [os.environ["NO_SUCH_VARIABLE"]])


@pytest.mark.parametrize(
    ("key", "options", "words"),
    [
        ("X", NoDataclass, r"NoDataclass'> are no dataclass that Wool can read: TypeError"),
        ("X", None, r"^The options None are no dataclass that Wool can read: TypeError.* Report"),
        ("X", Failing, "Failing'> are .*: KeyError: 'NO"),
        ("X", Unresolvable, "Unresolvable'> are .*: NameError: name 'No"),
        ("X", Odd, "option 'x' has a type that Wool cannot read"),
        ("Y", Odd, "Wool cannot make a slice from a setting"),
    ],
)
def test_options_that_nobody_can_read(key: str, options: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        read(**{f"WOOL_GRPC__{key}": "1"}).options("grpc", options)
    assert read().options("grpc", Odd, {"y": slice(2)})[0].y == slice(2)
