"""`wool doctor`: what it finds, what it says to change, and its exit code."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import wool
from wool import _namesake
from wool._security import certificates
from wool.cli import main, trials

TOKEN = wool.Credentials.new_token()


@pytest.fixture(autouse=True)
def _patient(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever answers may take its time."""
    monkeypatch.setattr(trials, "PATIENCE", 30.0)


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], env=variables, catch_exceptions=False)


def found(*arguments: str, **variables: str) -> tuple[int, list[dict[str, str]]]:
    result = run(*arguments, "--json", **variables)
    document = json.loads(result.stdout)
    assert document["ok"] is (result.exit_code == 0)
    return result.exit_code, document["findings"]


def problems(*arguments: str, **variables: str) -> list[dict[str, str]]:
    code, findings = found(*arguments, **variables)
    bad = [finding for finding in findings if finding["state"] == "problem"]
    assert (code == 1) is bool(bad), findings
    return bad


def of(findings: list[dict[str, str]], check: str) -> list[dict[str, str]]:
    return [finding for finding in findings if finding["check"] == check]


# As a whole


def test_all_is_well() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for check in ("python", "packages", "settings", "credentials", "pool", "worker"):
        assert any(line.startswith(f"ok       {check}: ") for line in lines), check
    for package in ("wool-core 0.1.0, ", "wool-grpc 0.1.0, ", "wool-zeroconf 0.1.0"):
        assert package in result.stdout
    assert "problem" not in result.stdout


def test_what_is_to_be_changed_stands_below() -> None:
    result = run("--discovery", "zeroconf", "--interface", "lo")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = lines.index("problem  credentials: there are none, and a network takes some")
    assert lines[at + 1].startswith("         -> set WOOL_TOKEN to the same token on every machine")
    assert lines[-1].endswith("1 problem")
    assert "trials: none were made" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--namespace", "x", "--discovery"], ["--ca", "/nowhere"], ["--token-file", "/nowhere"]],
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# Installation


def test_the_other_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_namesake, "problem", lambda: "another wool is here: uninstall it")
    assert [f["text"] for f in problems()] == ["another wool is here: uninstall it"]


# Settings and back-ends


@pytest.mark.parametrize("word", ["transport", "discovery", "serializer"])
def test_a_back_end_that_is_not_installed(word: str) -> None:
    bad = problems(**{f"WOOL_{word.upper()}": "pigeon"})
    assert "pigeon" in bad[0]["text"]
    assert len(bad) == 1


# Credentials


def test_a_weak_token() -> None:
    (one,) = problems(WOOL_TOKEN="correct horse")
    assert one["check"] == "credentials"
    assert "none that `wool token` has made" in one["text"] and "horse" not in one["text"]


def test_a_token_in_a_file_that_others_can_read() -> None:
    path = Path("token")
    path.write_text(TOKEN)
    path.chmod(0o644)
    code, findings = found(WOOL_TOKEN_FILE=str(path))
    (advice,) = [f for f in of(findings, "credentials") if f["state"] == "advice"]
    assert code == 0 and advice["remedy"] == "chmod 600 token"
    path.chmod(0o600)
    _, findings = found(WOOL_TOKEN_FILE=str(path))
    assert {f["state"] for f in of(findings, "credentials")} == {"ok"}


def authority(folder: str, *hosts: str, days: int = 365) -> dict[str, str]:
    """Makes certificates, and returns the variables that name them."""
    place = Path(folder).absolute()
    certificates.make_authority(place, 3650)
    certificates.make_certificate(place, "own", hosts, days)
    files = {"CA": "ca.pem", "CERT": "own.pem", "KEY": "own-key.pem"}
    return {f"WOOL_TLS__{name}": str(place / file) for name, file in files.items()}


def of_certificates(**files: str) -> tuple[int, list[dict[str, str]]]:
    code, findings = found("--address", "ws://127.0.0.1:0", **files)
    return code, of(findings, "certificates") + of(findings, "worker")


def test_certificates_that_are_good() -> None:
    code, findings = of_certificates(**authority("certs", "127.0.0.1", "alpha.example"))
    assert code == 0, findings
    texts = " ".join(f["text"] for f in findings)
    assert "/certs/own.pem is valid until" in texts and "/certs/ca.pem is valid until" in texts


@pytest.mark.parametrize(("days", "state"), [(3, "advice"), (-3, "problem")])
def test_a_certificate_that_ends(days: int, state: str) -> None:
    _, findings = of_certificates(**authority("certs", "127.0.0.1", days=days))
    (one,) = [f for f in findings if f["state"] == state]
    assert "own.pem is valid until" in one["text"] and "wool certs issue" in one["remedy"]


def test_a_certificate_of_another_authority() -> None:
    files = authority("certs", "127.0.0.1") | {
        "WOOL_TLS__CA": authority("other", "127.0.0.1")["WOOL_TLS__CA"]
    }
    _, findings = of_certificates(**files)
    (one,) = [f for f in findings if f["state"] == "problem"]
    assert one["check"] == "worker" and "certificate" in one["text"]


def test_a_certificate_and_the_key_of_another() -> None:
    files, other = authority("certs", "a.b"), authority("other", "a.b")
    (one,) = problems("--transport", "ws", **files | {"WOOL_TLS__KEY": other["WOOL_TLS__KEY"]})
    assert one["check"] == "credentials" and "belong together" in one["text"]


def test_a_key_that_others_can_read() -> None:
    files = authority("certs", "127.0.0.1")
    Path(files["WOOL_TLS__KEY"]).chmod(0o640)
    _, findings = found("--address", "ws://127.0.0.1:0", **files)
    (one,) = of(findings, "credentials")
    assert one["remedy"] == f"chmod 600 {files['WOOL_TLS__KEY']}"


# Limits


def test_few_open_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        _, findings = found()
        (one,) = of(findings, "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert one["state"] == "advice" and "LimitNOFILE" in one["remedy"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken(taken: int) -> None:
    (one,) = problems("--address", f"grpc://127.0.0.1:{taken}", WOOL_TOKEN=TOKEN)
    assert one["check"] == "worker" and "ss -ltnp" in one["remedy"]


# Trials


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
def test_a_worker_on_a_network(scheme: str) -> None:
    code, findings = found("--address", f"{scheme}://127.0.0.1:0", WOOL_TOKEN=TOKEN)
    assert code == 0, findings
    (one,) = of(findings, "worker")
    assert "listens, and can be called at" in one["text"]
    assert of(findings, "pool")[0]["state"] == "ok"


def test_an_advertised_address_that_leads_nowhere() -> None:
    (one,) = problems(
        *("--address", "ws://127.0.0.1:0", "--advertise", "ws://127.0.0.1:1"), WOOL_TOKEN=TOKEN
    )
    assert one["text"].startswith("at ws://127.0.0.1:1, it cannot be called: ")


@pytest.mark.parametrize("discovery", ["shm", "zeroconf"])
def test_a_discovery_that_works(discovery: str) -> None:
    namespace = secrets.token_hex(4)
    arguments = ["--discovery", discovery, "--namespace", namespace]
    if discovery == "zeroconf":
        arguments += ["--interface", "127.0.0.1"]
    code, findings = found(*arguments, WOOL_TOKEN=TOKEN)
    assert code == 0, findings
    (one,) = of(findings, f"discovery {discovery}")
    assert "is heard on this machine" in one["text"]
    (none,) = of(findings, "workers")
    assert none["state"] == "advice" and "has found none" in none["text"]
