"""Names nobody knows, variables of Kubernetes, and secrets in the wrong place."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unit.settingskit import (
    SECRET,
    Options,
    only_own,
    option,
    option_refused,
    read,
    refused,
    write,
)
from wool._settings.model import TABLES, Core, settings_of
from wool._settings.settings import Settings
from wool._settings.sources import CONFIG, TOKEN, TOKEN_FILE, is_from_kubernetes, variable
from wool.exceptions import ConfigurationError

# Names nobody knows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "transprot = 'ws'",
            (
                "[tool.wool] has no setting 'transprot'. Did you mean 'transport'? "
                f"Its settings are: {', '.join(settings_of(Core))}."
            ),
        ),
        ("quorum-timeout = 1", "no setting 'quorum-timeout'. Did you mean 'quorum_timeout'?"),
        ("xyzzy = 1", "[tool.wool] has no setting 'xyzzy'. Its settings are: transport,"),
        ("gprc = 1", "[tool.wool] has no setting 'gprc'. Did you mean 'grpc'?"),
        ("grpc = 1", "[tool.wool]: grpc has settings of its own: write a table [tool.wool.grpc]"),
        ("tls = 'x'", "[tool.wool]: tls has settings of its own: write a table [tool.wool.tls]"),
        ("[[tool.wool.grpc]]", "grpc has settings of its own: write a table [tool.wool.grpc]"),
        (
            "[tool.wool.gprc]",
            (
                "has a table [tool.wool.gprc], but there is no back-end 'gprc'. Did you mean "
                "'grpc'? There are: carrier-pigeon, grpc, memory, tls, unix, ws."
            ),
        ),
        ("[tool.wool.xyzzy]", "there is no back-end 'xyzzy'. There are: carrier-pigeon, grpc,"),
        ("[tool.wool.'x y']", 'has a table [tool.wool."x y"], but there is no back-end'),
        (
            "[tool.wool.tls]\ncerts = 'x'",
            (
                "[tool.wool.tls] has no setting 'certs'. Did you mean 'cert'? Its settings are: "
                "ca, cert, key, name, proxy."
            ),
        ),
    ],
)
def test_an_unknown_key(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"[tool.wool]\n{text}")
    message = refused(tmp_path)
    assert message.startswith(f"{path} ")
    assert words in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WOOL_TRANSPROT", "Did you mean 'WOOL_TRANSPORT'?"),
        ("WOOL_transport", "Did you mean 'WOOL_TRANSPORT'?"),
        ("WOOL_CONFG", "Did you mean 'WOOL_CONFIG'?"),
        ("WOOL_TOKEN_FLIE", "Did you mean 'WOOL_TOKEN_FILE'?"),
        ("WOOL_TLS_CA", "Did you mean 'WOOL_TLS__CA'?"),
        ("WOOL_GRPC_KEEPALIVE", "Did you mean 'WOOL_GRPC__KEEPALIVE'?"),
        ("WOOL_GPRC__KEEPALIVE", "Did you mean 'WOOL_GRPC__KEEPALIVE'?"),
        ("WOOL_CARRIER_PIGEON_SPEED", "Did you mean 'WOOL_CARRIER_PIGEON__SPEED'?"),
        ("WOOL_grpc__keepalive", "Did you mean 'WOOL_GRPC__KEEPALIVE'?"),
        ("WOOL_XYZZY", "variable WOOL_XYZZY. Settings are named like WOOL_TRANSPORT, or"),
        ("WOOL_", "variable WOOL_. Settings are named like"),
    ],
)
def test_an_unknown_variable(name: str, hint: str) -> None:
    message = refused(**{name: SECRET})
    assert message.startswith(f"There is no setting for the environment variable {name}.")
    assert hint in message
    assert SECRET not in message


def test_an_unknown_option(tmp_path: Path) -> None:
    message = option_refused(WOOL_GRPC__KEEPALIV=SECRET)
    assert "variable WOOL_GRPC__KEEPALIV. Did you mean 'WOOL_GRPC__KEEPALIVE'?" in message
    assert "Its settings are: keepalive, retries, compress," in message
    assert SECRET not in message
    path = write(tmp_path, "[tool.wool.grpc]\nkeepaliv = 1")
    message = option_refused(tmp_path)
    assert message.startswith(f"{path} [tool.wool.grpc] has no setting 'keepaliv'. Did you mean")

    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(ConfigurationError, match="'keepaliv'. It has no settings.$"):
        read(tmp_path).options("grpc", Nothing)


def test_a_name_that_is_no_identifier(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool.carrier-pigeon]\nretries = 1")
    settings = read(tmp_path, WOOL_CARRIER_PIGEON__MODE="safe")
    options, origins = settings.options("carrier-pigeon", Options)
    assert (options.retries, options.mode) == (1, "safe")
    assert origins["mode"] == "environment variable WOOL_CARRIER_PIGEON__MODE"


def test_installed_names_are_asked_for_only_if_need_be(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool.ws]\n[tool.wool.tls]\n[tool.wool]\nsize = 1")
    variables = {"WOOL_GRPC__X": "1", "WOOL_SIZE": "3", "WOOL_TOKEN": SECRET}
    Settings.read(only_own, variables=variables, folder=tmp_path)


def test_options_of_those_not_chosen_cost_nothing(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool.grpc]\nnonsense = 1")
    settings = read(tmp_path, WOOL_WS__NONSENSE="1")
    assert settings.options("unix", Options)[0] == Options()


# What Kubernetes says

INJECTED = {
    "WOOL_SERVICE_HOST": "10.0.0.1",
    "WOOL_SERVICE_PORT": "80",
    "WOOL_SERVICE_PORT_HTTP": "80",
    "WOOL_PORT": "tcp://10.0.0.1:80",
    "WOOL_PORT_80_TCP": "tcp://10.0.0.1:80",
    "WOOL_PORT_80_TCP_PROTO": "tcp",
    "WOOL_PORT_80_TCP_PORT": "80",
    "WOOL_PORT_80_TCP_ADDR": "10.0.0.1",
    "WOOL_PORT_53_UDP_ADDR": "10.0.0.1",
    "WOOL_WORKERS_SERVICE_HOST": "10.0.0.1",
    "WOOL_WORKERS_SERVICE_PORT": "80",
    "WOOL_WORKERS_SERVICE_PORT_GRPC_WEB": "80",
    "WOOL_WORKERS_PORT": "udp://10.0.0.1:53",
    "WOOL_WORKERS_PORT_80_TCP_ADDR": "10.0.0.1",
    "WOOL_GRPC__B_SERVICE_HOST": "10.0.0.1",
    "WOOL_GRPC__B_PORT": "tcp://10.0.0.1:80",
}


def test_variables_of_kubernetes_are_ignored() -> None:
    settings = read(**INJECTED)
    assert settings.core()[0] == Core()
    assert settings.options("grpc", Options)[0] == Options()


@pytest.mark.parametrize(
    "variables",
    [
        {"WOOL_PORT": "7000"},
        {"WOOL_WORKERS_PORT": "7000"},
        {"WOOL_SERVICE": "x"},
        {"WOOL_SERVICE_HOSTS": "x"},
        {"WOOL_PORT_80_TCP_NAME": "x"},
    ],
)
def test_what_only_looks_like_kubernetes(variables: dict[str, str]) -> None:
    assert "There is no setting" in refused(**variables)


def test_an_option_may_be_called_like_a_variable_of_kubernetes() -> None:
    @dataclass(frozen=True)
    class Served:
        port: int = 0
        service_host: str = ""

    settings = read(WOOL_GRPC__PORT="5", WOOL_GRPC__SERVICE_HOST="h")
    assert settings.options("grpc", Served)[0] == Served(5, "h")


def test_no_setting_of_ours_is_called_like_a_variable_of_kubernetes() -> None:
    keys = [variable("", key) for key in settings_of(Core)]
    keys += [variable(t, key) for t, options in TABLES.items() for key in settings_of(options)]
    for name in [*keys, CONFIG, TOKEN, TOKEN_FILE]:
        assert not is_from_kubernetes(name, "tcp://10.0.0.1:80")


# Secrets


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "token = '{}'",
            "[tool.wool]: token is for a secret, which does not belong in this file: ",
        ),
        ("token = '{}'", "and set the environment variable WOOL_TOKEN, or name a file by WOOL_TOK"),
        ("token_file = '{}'", "or name a file by WOOL_TOKEN_FILE"),
        ("[tool.wool.token]\nx = '{}'", "[tool.wool]: token is for a secret"),
        ("[tool.wool.grpc]\ntoken = '{}'", "set the environment variable WOOL_GRPC__TOKEN"),
        ("[tool.wool.xyzzy]\npassword = '{}'", "environment variable WOOL_XYZZY__PASSWORD"),
        ("size = {{ secret = '{}' }}", "[tool.wool.size]: secret is for a secret"),
    ],
)
def test_a_secret_in_the_file(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, "[tool.wool]\n" + text.format(SECRET))
    message = refused(tmp_path)
    assert message.startswith(str(path))
    assert words in message
    assert SECRET not in message


def test_a_secret_option(tmp_path: Path) -> None:
    assert option("url", WOOL_GRPC__URL=SECRET) == SECRET
    message = option_refused(WOOL_GRPC__URL=SECRET, WOOL_GRPC__KEEPALIVE="0")
    assert message == (
        "The settings of grpc cannot be used: a keepalive of 0.0 with retries, at … "
        "(keepalive from environment variable WOOL_GRPC__KEEPALIVE, "
        "url from environment variable WOOL_GRPC__URL)"
    )
    write(tmp_path, f"[tool.wool.grpc]\nurl = '{SECRET}'")
    message = option_refused(tmp_path)
    assert "url is for a secret" in message
    assert "WOOL_GRPC__URL" in message
    assert SECRET not in message


def test_no_traceback_shows_a_secret() -> None:
    settings = read(WOOL_GRPC__URL=SECRET, WOOL_GRPC__KEEPALIVE="0")
    with pytest.raises(ConfigurationError) as caught:
        settings.options("grpc", Options)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_secret_is_known_by_its_name_too() -> None:
    @dataclass(frozen=True)
    class Careless:
        password: int = 0

    settings = read(WOOL_GRPC__PASSWORD=SECRET)
    with pytest.raises(ConfigurationError, match="password must be a whole number$"):
        settings.options("grpc", Careless)


def test_a_secret_of_the_wrong_type() -> None:
    @dataclass(frozen=True)
    class Locked:
        code: int = field(default=0, repr=False)

    settings = read(WOOL_GRPC__CODE=SECRET)
    with pytest.raises(ConfigurationError) as caught:
        settings.options("grpc", Locked)
    assert str(caught.value) == (
        "environment variable WOOL_GRPC__CODE: code must be a whole number"
    )
    assert caught.value.__cause__ is None


def test_tokens_are_left_to_others() -> None:
    settings = read(WOOL_TOKEN=SECRET, WOOL_TOKEN_FILE="/x")
    assert settings.core()[0] == Core()
