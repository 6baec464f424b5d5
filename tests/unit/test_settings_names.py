"""Names nobody knows, variables of Kubernetes, and secrets in the wrong place."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

from unit.settingskit import (
    SECRET,
    Options,
    option,
    option_refused,
    read,
    refused,
    write,
)
from wool._settings.model import Core, settings_of
from wool.exceptions import ConfigurationError

# Names nobody knows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("transprot = 'ws'", "[tool.wool] has no setting or table 'transprot'. Did you mean 'tran"),
        ("quorum-timeout = 1", "no setting or table 'quorum-timeout'. Did you mean 'quorum_timeo"),
        ("gprc = 1", "[tool.wool] has no setting or table 'gprc'. Did you mean 'grpc'?"),
        ("[tool.wool.gprc]", "[tool.wool] has no setting or table 'gprc'. Did you mean 'grpc'?"),
        (
            "[tool.wool.xyzzy]",
            f"'xyzzy'. There are: {', '.join(settings_of(Core))}, carrier-pigeon, grpc, memory, t",
        ),
        ("grpc = 1", "[tool.wool]: grpc has settings of its own: write a table [tool.wool.grpc]"),
        ("[[tool.wool.tls]]", "tls has settings of its own: write a table [tool.wool.tls]"),
        (
            "[tool.wool.tls]\ncerts = 'x'",
            "[tool.wool.tls] has no setting or table 'certs'. Did you mean 'cert'? There are: ca,",
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
    assert "There are: WOOL_GRPC__KEEPALIVE, WOOL_GRPC__RETRIES," in message
    assert SECRET not in message
    path = write(tmp_path, "[tool.wool.grpc]\nkeepaliv = 1")
    message = option_refused(tmp_path)
    assert message.startswith(
        f"{path} [tool.wool.grpc] has no setting or table 'keepaliv'. Did you mean"
    )

    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(ConfigurationError, match="'keepaliv'. There is none.$"):
        read(tmp_path).options("grpc", Nothing)


def test_a_name_that_is_no_identifier(tmp_path: Path) -> None:
    write(tmp_path, "[tool.wool.carrier-pigeon]\nretries = 1")
    settings = read(tmp_path, WOOL_CARRIER_PIGEON__MODE="safe")
    options, origins = settings.options("carrier-pigeon", Options)
    assert (options.retries, options.mode) == (1, "safe")
    assert origins["mode"] == "environment variable WOOL_CARRIER_PIGEON__MODE"


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


def test_tokens_are_left_to_others() -> None:
    settings = read(WOOL_TOKEN=SECRET, WOOL_TOKEN_FILE="/x")
    assert settings.core()[0] == Core()
