"""Tokens, certificates, credentials and the TLS they ask transports for."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import wool
from wool._security import certificates, tokens
from wool._security.credentials import (
    Insecure,
    Keyring,
    MutualTls,
    PoolSecret,
    Token,
    restore,
    restore_keyring,
)
from wool._security.tls import MutualChannel
from wool.abc import Connection, Tls
from wool.exceptions import AuthenticationError, ConfigurationError

GOOD = tokens.generate()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WOOL_TOKEN", raising=False)
    monkeypatch.delenv("WOOL_TOKEN_FILE", raising=False)


# Tokens


def test_a_generated_token_is_strong_and_new() -> None:
    made = {tokens.generate() for _ in range(100)}
    assert len(made) == 100
    assert all(tokens.check(token, "here") == token for token in made)


@pytest.mark.parametrize(
    "other",
    [
        "secret",
        "password12345password12345",
        "CorrectHorseBatteryStaple",
        "0123456789abcdef0123456789abcdef",
        "7f1d09c2e65ab348f0be4c1d8a2b97657f1d09c2e65ab348f0be4c1d8a2b9765",  # random, perhaps
        "wool_" + "a" * 48,
        "wool_",
        pytest.param(GOOD[5:], id="without its prefix"),
        pytest.param(GOOD + "a", id="longer"),
    ],
)
def test_what_is_no_token_is_refused_and_not_told(other: str) -> None:
    with pytest.raises(ConfigurationError, match="`wool token` prints a good one") as caught:
        wool.Credentials.token(other)
    assert other not in str(caught.value).replace("wool_", "")


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="WOOL_TOKEN or WOOL_TOKEN_FILE"):
        wool.Credentials.token()
    monkeypatch.setenv("WOOL_TOKEN", GOOD)
    assert wool.Credentials.token().secret == GOOD.encode()
    file = tmp_path / "token"
    file.write_text(f"{GOOD}\n")
    monkeypatch.setenv("WOOL_TOKEN_FILE", str(file))
    with pytest.raises(ConfigurationError, match="both WOOL_TOKEN and WOOL_TOKEN_FILE"):
        wool.Credentials.token()
    monkeypatch.delenv("WOOL_TOKEN")
    assert wool.Credentials.token().secret == GOOD.encode()
    file.unlink()
    with pytest.raises(ConfigurationError, match="WOOL_TOKEN_FILE: .* cannot be read"):
        wool.Credentials.token()
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        wool.Credentials.token()


# Credentials


class Dialled:
    """A connection that knows the listener's certificate."""

    def __init__(self, certificate: bytes | None) -> None:
        self._certificate = certificate

    def extra(self, attribute: str, default: Any = None) -> Any:
        return self._certificate if attribute == "certificate" else default


def test_a_token_is_bound_to_the_certificate() -> None:
    credentials = Token(GOOD)
    acceptor, other = credentials.acceptor(), credentials.acceptor()
    assert acceptor.tls is not None and other.tls is not None
    assert acceptor.binding != other.binding, "each listener makes a certificate of its own"
    pem = acceptor.tls.server_pem().certificate
    assert pem is not None
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    binding = credentials.binding(cast(Connection, Dialled(der)))
    assert binding == acceptor.binding == hashlib.sha256(der).digest()
    with pytest.raises(AuthenticationError, match="does not tell the certificate"):
        credentials.binding(cast(Connection, Dialled(None)))


def test_through_a_proxy_a_token_is_bound_to_its_name() -> None:
    credentials = Token(GOOD, proxy="wool.example")
    acceptor = credentials.acceptor()
    tls = credentials.client_tls()
    assert acceptor.tls is None and tls is not None
    assert tls.verify and tls.server_name == "wool.example"
    assert credentials.binding(cast(Connection, Dialled(b"whatever"))) == acceptor.binding
    assert Token(GOOD, proxy="other.example").acceptor().binding != acceptor.binding
    assert credentials.kind != Token(GOOD).kind
    with pytest.raises(ConfigurationError, match="`proxy`"):
        Token(GOOD, ca="ca.pem")
    with pytest.raises(ConfigurationError, match=r"missing\.pem cannot be read"):
        Token(GOOD, proxy="wool.example", ca="missing.pem")


def test_credentials_travel_to_spawned_workers(authority: Path) -> None:
    files = {k: str(authority / f) for k, f in FILES.items()}
    for one in (
        Token(GOOD),
        Token(GOOD, proxy="p", ca=files["ca"]),
        MutualTls(**files),
        PoolSecret(),
        Insecure(),
    ):
        other = restore(one.export())
        assert type(other) is type(one)
        assert (other.kind, other.secret, other.export()) == (one.kind, one.secret, one.export())
    keyring = Keyring(PoolSecret(), Token(GOOD))
    again = restore_keyring(keyring.export())
    assert again.local.secret == keyring.local.secret
    assert again.pick("x://y", local=False).secret == GOOD.encode()
    alone = restore_keyring(Keyring(PoolSecret()).export())
    with pytest.raises(ConfigurationError, match=r"grpc://h:1 .* WOOL_TOKEN"):
        alone.pick("grpc://h:1", local=False)


# TLS, for real

FILES = {"ca": "ca.pem", "cert": "node.pem", "key": "node-key.pem"}


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with an authority, and one node's certificate, as `wool certs` makes them."""
    folder = tmp_path / "certs"
    certificates.make_authority(folder, 30)
    certificates.make_certificate(folder, "node", ["localhost", "127.0.0.1", "::1"], 30)
    return folder


def test_making_certificates_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "wool._security.certificates")
    with pytest.raises(ConfigurationError, match=r"pip install .wool-core\[tls\]"):
        Token(GOOD).acceptor()


@pytest.mark.parametrize("kept", ["ca.pem", "ca-key.pem"])
def test_half_of_an_authority_is_left_alone(authority: Path, kept: str) -> None:
    """A new key beside the old certificate would sign what nobody accepts."""
    before = (authority / kept).read_bytes()
    for path in authority.iterdir():
        if path.name != kept:
            path.unlink()
    with pytest.raises(ConfigurationError, match=f"{kept} exists already"):
        certificates.make_authority(authority, 30)
    assert {path.name: path.read_bytes() for path in authority.iterdir()} == {kept: before}


def mutual(folder: Path, name: str | None = None) -> wool.Credentials:
    return wool.Credentials.tls(**{k: str(folder / f) for k, f in FILES.items()}, name=name)


def paths(folder: Path) -> dict[str, Any]:
    return {name: folder / file for name, file in FILES.items()}


def test_a_key_in_place_of_its_path(authority: Path) -> None:
    """It is not shown."""
    key = (authority / FILES["key"]).read_text()
    for content in (key, key.encode()):
        with pytest.raises(ConfigurationError) as raised:
            wool.Credentials.tls(**{**paths(authority), "key": content})
        assert "PRIVATE" not in str(raised.value) and key[40:60] not in str(raised.value)


@contextmanager
def server(tls: Tls) -> Iterator[int]:
    """Says one byte on each TLS connection; gives its port."""
    context = tls.server_context()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    raw, _ = listening.accept()
                except OSError:
                    return
                try:
                    with raw, context.wrap_socket(raw, server_side=True) as secured:
                        secured.sendall(b"x")
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(port: int, tls: Tls, host: str = "127.0.0.1") -> bytes:
    """Waits for a byte; returns the server's certificate.

    It says nothing itself: what a server has not read when it closes would destroy its last words.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        tls.client_context().wrap_socket(raw, server_hostname=tls.server_name or host) as secured,
    ):
        assert secured.version() == "TLSv1.3"
        assert secured.recv(1) == b"x"
        certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


def client(credentials: wool.Credentials) -> Tls:
    tls = credentials.client_tls()
    assert tls is not None
    return tls


def listener(credentials: wool.Credentials) -> Tls:
    tls = credentials.acceptor().tls
    assert tls is not None
    return tls


def test_mutual_tls(authority: Path) -> None:
    credentials = mutual(authority)
    with server(listener(credentials)) as port:
        ask(port, client(credentials))
        with pytest.raises(ssl.SSLError, match="(?i)mismatch|not valid for"):
            ask(port, client(credentials), host="other.example")
        with pytest.raises(ssl.SSLError, match="(?i)certificate.required|handshake.failure"):
            ask(port, client(Token(GOOD)))
        ask(port, client(mutual(authority, "localhost")), host="other.example")


def test_no_key_touches_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("needs files in memory")
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)
    listener(Token(GOOD)).server_context()


def replace(source: Path, target: Path) -> None:
    for name in FILES.values():
        (target / f"{name}.new").write_bytes((source / name).read_bytes())
        (target / f"{name}.new").replace(target / name)


def test_files_that_are_being_replaced(authority: Path, tmp_path: Path) -> None:
    """Until all of them fit together what was read before stays in force."""
    files = MutualChannel(*(str(authority / name) for name in FILES.values()))
    before = files.client_pem()
    certificates.make_certificate(authority, "next", ["127.0.0.1"], 30)
    (authority / "next.pem").replace(authority / "node.pem")
    assert files.client_pem() == before
    (authority / "node-key.pem").unlink()
    assert files.client_pem() == before
    (authority / "next-key.pem").replace(authority / "node-key.pem")
    assert files.client_pem() != before
    assert files.client_pem() is files.client_pem()


def other_key(folder: Path) -> None:
    certificates.make_certificate(folder, "other", ["x"], 30)
    (folder / "other-key.pem").replace(folder / "node-key.pem")


def swap(folder: Path) -> None:
    certificate, key = folder / "node.pem", folder / "node-key.pem"
    held = certificate.read_text()
    certificate.write_text(key.read_text())
    key.write_text(held)


def damage(folder: Path) -> None:
    path = folder / "node.pem"
    path.write_text(path.read_text().replace("MII", "!!!", 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "node.pem").unlink(), r"node\.pem cannot be read: No such file"),
        (
            lambda f: (f / "node.pem").write_text("?"),
            r"one of them holds something else",
        ),
        (lambda f: (f / "node-key.pem").write_text("?"), "one of them holds something else"),
        (swap, "one of them holds something else"),
        (damage, "Both have to be in PEM form"),
        (lambda f: (f / "ca.pem").write_text("?"), r"ca\.pem holds no certificate in PEM form"),
        (lambda f: (f / "ca.pem").write_text(""), r"ca\.pem holds no certificate in PEM form"),
        (other_key, "key values mismatch.* belong together"),
    ],
    ids=[
        "no file",
        "no certificate",
        "no key",
        "swapped",
        "damaged",
        "no authority",
        "nothing",
        "another key",
    ],
)
def test_files_of_no_use(authority: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(authority)
    with pytest.raises(ConfigurationError, match=message):
        mutual(authority)


def test_an_encrypted_key_asks_for_no_password(authority: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    path = authority / "node-key.pem"
    key = s.load_pem_private_key(path.read_bytes(), None)
    how = s.BestAvailableEncryption(b"hush")
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, how))
    with pytest.raises(ConfigurationError, match="must not need a password"):
        mutual(authority)


def test_credentials_are_not_for_pickles() -> None:
    with pytest.raises(TypeError, match="credentials"):
        pickle.dumps(Token(GOOD))
