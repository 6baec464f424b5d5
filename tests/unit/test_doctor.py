"""`wool doctor`: what it finds, what it says to change, and its exit code."""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import wool
from wool import _namesake
from wool._security import certificates
from wool.cli import checks, main, trials

TOKEN = wool.Credentials.new_token()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, and no file is near; and whatever answers may take its time."""
    monkeypatch.setattr(trials, "PATIENCE", 30.0)
    for name in [name for name in os.environ if name.startswith("WOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


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


def test_a_mistake_in_a_file() -> None:
    Path("pyproject.toml").write_text('[tool.wool]\ntransprot = "grpc"\n')
    (one,) = problems()
    assert one["check"] == "settings"
    assert "transprot" in one["text"] and "'transport'" in one["text"]


def test_a_secret_in_a_file() -> None:
    Path("pyproject.toml").write_text(f'[tool.wool]\ntoken = "{TOKEN}"\n')
    (one,) = problems()
    assert "token" in one["text"] and TOKEN not in one["text"]


def test_where_settings_come_from() -> None:
    Path("pyproject.toml").write_text("[tool.wool]\nsize = 3\n")
    code, findings = found(WOOL_TOKEN=TOKEN)
    assert code == 0
    (one,) = of(findings, "settings")
    assert one["text"].endswith("pyproject.toml, WOOL_TOKEN")
    assert TOKEN not in json.dumps(findings)


@pytest.mark.parametrize("word", ["transport", "discovery", "serializer"])
def test_a_back_end_that_is_not_installed(word: str) -> None:
    bad = problems(**{f"WOOL_{word.upper()}": "pigeon"})
    assert "pigeon" in bad[0]["text"]
    assert len(bad) == 1


def test_an_option_of_no_use() -> None:
    (one,) = problems("--discovery", "zeroconf", WOOL_ZEROCONF__INTERVAL="0", WOOL_TOKEN=TOKEN)
    assert one["check"] == "discovery" and "interval" in one["text"]


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


def certificate_findings(**variables: str) -> list[dict[str, str]]:
    _, findings = found("--address", "ws://127.0.0.1:0", **variables)
    return of(findings, "certificates")


def test_certificates_that_are_good() -> None:
    files = authority("certs", "127.0.0.1", "alpha.example")
    code, findings = found("--address", "ws://127.0.0.1:0", **files)
    assert code == 0, findings
    texts = " ".join(f["text"] for f in of(findings, "certificates"))
    assert "/certs/own.pem is good for workers at alpha.example, 127.0.0.1" in texts
    assert "/certs/ca.pem is valid until" in texts


def test_a_certificate_that_ends_soon() -> None:
    states = {f["state"]: f for f in certificate_findings(**authority("certs", "a.b", days=3))}
    assert "expires on" in states["advice"]["text"]
    assert "wool certs issue" in states["advice"]["remedy"]


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (400, "certs/own.pem has expired on"),
        (-400, "certs/own.pem is valid only from"),
    ],
)
def test_a_clock_that_does_not_fit_the_certificate(
    days: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority("certs", "alpha.example")
    then = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    monkeypatch.setattr(checks, "_now", lambda: then)
    bad = [f["text"] for f in certificate_findings(**files) if f["state"] == "problem"]
    assert any(words in text for text in bad), bad


def test_a_certificate_of_another_authority() -> None:
    files = authority("certs", "alpha.example")
    other = authority("other", "alpha.example")
    found = certificate_findings(**files | {"WOOL_TLS__CA": other["WOOL_TLS__CA"]})
    (one,) = [f for f in found if f["state"] == "problem"]
    assert "was not signed by the authority in " in one["text"]


def test_a_certificate_for_this_machine_alone() -> None:
    (*_, last) = certificate_findings(**authority("certs", "127.0.0.1", "localhost"))
    assert last["state"] == "advice" and "loopback" in last["text"]


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


def test_a_transport_within_this_process() -> None:
    (one,) = problems(WOOL_TRANSPORT="memory")
    assert one["text"].startswith("the transport 'memory' is not reached from other processes")
    assert one["remedy"].startswith("choose another transport")


def test_an_advertised_address_that_leads_nowhere() -> None:
    (one,) = problems(
        *("--address", "ws://127.0.0.1:0", "--advertise", "ws://127.0.0.1:1"), WOOL_TOKEN=TOKEN
    )
    assert one["text"].startswith("at ws://127.0.0.1:1, it cannot be called: ")


def test_a_certificate_that_does_not_name_the_address() -> None:
    files = authority("certs", "elsewhere.example")
    (one,) = problems("--address", "ws://127.0.0.1:0", **files)
    assert one["check"] == "worker" and "127.0.0.1" in one["text"]


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


def test_workers_of_no_use() -> None:
    (one,) = problems("--discovery", "static", WOOL_STATIC__ADDRESSES="unix:///nowhere/a")
    assert one["check"] == "workers"
    assert "has found 1, of which 0 can be used; unix:///nowhere/a: " in one["text"]


def test_a_discovery_that_fails() -> None:
    (one,) = problems("--discovery", "dns", WOOL_DNS__NAME="-..-", WOOL_TOKEN=TOKEN)
    assert one["check"] == "workers" and "cannot be a name" in one["text"]


def test_a_place_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (one,) = [
        finding
        for finding in problems("--discovery", "shm", WOOL_SHM__DIRECTORY=str(tmp_path / "file"))
        if finding["check"] == "discovery shm"
    ]
    assert str(tmp_path) in one["text"] and "WOOL_SHM__DIRECTORY" in one["remedy"]
