"""What a value becomes, and every message about one that is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from unit.settingskit import Colour, Options, option, option_refused, read, refused, write
from wool._settings.model import Tls
from wool._settings.values import describe
from wool.exceptions import ConfigurationError, PluginError

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
        ("retries = 9", 9),
        ("compress = true", True),
        ("mode = 'safe'", "safe"),
        ("colour = 'blue'", Colour.BLUE),
        ("hosts = ['a', 'b']", ("a", "b")),
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
        ("WOOL_SIZE", "many", "size must be a whole number of at least 0, not 'many'"),
        ("WOOL_SIZE", "-1", "size must be a whole number of at least 0, not '-1'"),
        ("WOOL_SIZE", "2.5", "size must be a whole number of at least 0, not '2.5'"),
        ("WOOL_CONCURRENCY", "0", "concurrency must be a whole number of at least 1, not '0'"),
        ("WOOL_CANCEL_GRACE", "nan", "cancel_grace must be a number of at least 0, not 'nan'"),
        ("WOOL_LOOP", "trio", "loop must be one of 'asyncio', 'auto', 'uvloop', not 'trio'"),
        ("WOOL_SIZE", "x" * 200, f"least 0, not '{'x' * 79}…"),
    ],
)
def test_a_wrong_text(key: str, text: str, words: str) -> None:
    message = refused(**{key: text})
    assert message.startswith(f"environment variable {key}: ")
    assert message.endswith(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("transport = 1", "transport must be a string, not 1"),
        ("size = '4'", "size must be a whole number of at least 0, not '4'"),
        ("size = true", "size must be a whole number of at least 0, not True"),
        ("size = 2.0", "size must be a whole number of at least 0, not 2.0"),
        ("quorum_timeout = '1'", "quorum_timeout must be a number of at least 0, not '1'"),
        ("loop = []", "loop must be one of 'asyncio', 'auto', 'uvloop', not []"),
        ("size = {a = 1}", "size must be a whole number of at least 0, not {'a': 1}"),
    ],
)
def test_a_wrong_value(line: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"[tool.wool]\n{line}")
    assert refused(tmp_path) == f"{path} [tool.wool]: {words}"


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("compress", "perhaps", "compress must be true or false, not 'perhaps'"),
        (
            "retries",
            "10",
            "retries must be a whole number of at least 0 and less than 10, not '10'",
        ),
        ("colour", "grey", "colour must be one of 'red', 'blue', not 'grey'"),
        ("ports", "1,x", "ports must be a list, each item a whole number, not '1,x'"),
    ],
)
def test_a_wrong_option(key: str, text: str, words: str) -> None:
    name = f"WOOL_GRPC__{key.upper()}"
    assert option_refused(**{name: text}) == f"environment variable {name}: {words}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hosts = 'a,b'", "hosts must be a list, each item a string, not 'a,b'"),
        ("where = 1", "where must be a path, not 1"),
        ("where = ''", "where must be a path, not ''"),
    ],
)
def test_a_wrong_option_in_the_file(line: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"[tool.wool.grpc]\n{line}")
    assert option_refused(tmp_path) == f"{path} [tool.wool.grpc]: {words}"


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
        (Annotated[str, msgspec.Meta(pattern="^a")], "a string that matches '^a'"),
        (Annotated[str, msgspec.Meta(min_length=2)], "a string of at least 2 characters"),
        (
            Annotated[list[str], msgspec.Meta(min_length=2, max_length=3)],
            "a list of at least 2 and at most 3 items, each item a string",
        ),
        (set[bool], "a list, each item true or false"),
        (list[Path] | None, "a list, each item a path"),
        (bytes, "a value for Bytes"),
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


def test_options_whose_own_checks_say_nothing() -> None:
    @dataclass(frozen=True)
    class Silent:
        x: int = 1

        def __post_init__(self) -> None:
            raise ValueError

    message = r"^The settings of grpc cannot be used: ValueError \(x from environment"
    with pytest.raises(ConfigurationError, match=message):
        read(WOOL_GRPC__X="2").options("grpc", Silent)


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


def test_options_that_nobody_can_read() -> None:
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

    settings = read(WOOL_GRPC__X="1")
    with pytest.raises(PluginError, match=r"NoDataclass is not a dataclass\. Report"):
        settings.options("grpc", NoDataclass)
    for wrong in (None, Odd()):
        with pytest.raises(PluginError, match=r"^The options .* are no dataclass\. Report"):
            settings.options("grpc", wrong)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"Failing cannot make the default of 'x': KeyError: 'NO"):
        settings.options("grpc", Failing)
    with pytest.raises(PluginError, match="Unresolvable cannot be understood: NameError: name 'No"):
        settings.options("grpc", Unresolvable)
    with pytest.raises(PluginError, match="option 'x' has a type that Wool cannot read"):
        settings.options("grpc", Odd)
    with pytest.raises(PluginError, match="Wool cannot make a slice from a setting"):
        read(WOOL_GRPC__Y="1").options("grpc", Odd)
    assert read().options("grpc", Odd)[0] == Odd()
    assert read().options("grpc", Odd, {"y": slice(2)})[0].y == slice(2)


def test_fields_that_are_no_settings() -> None:
    @dataclass(frozen=True)
    class Derived:
        base: Sequence[int] = field(default_factory=lambda: [1])
        total: int = field(default=0, init=False)

    settings = read(WOOL_GRPC__TOTAL="5")
    with pytest.raises(ConfigurationError, match="Its settings are: base"):
        settings.options("grpc", Derived)
    assert read().options("grpc", Derived)[0].base == [1]
    assert read(WOOL_GRPC__BASE="2, 3").options("grpc", Derived)[0].base == [2, 3]
