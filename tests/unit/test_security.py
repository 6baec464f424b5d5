"""Tokens, certificates, credentials and the TLS they ask transports for."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import socket
import ssl
import stat
import string
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from hypothesis import assume, given
from hypothesis import strategies as st

import wool
from wool._client.identity import hello
from wool._peer.handshaking import dial
from wool._peer.routes import Route
from wool._security import certificates, tokens
from wool._security.credentials import (
    Authenticator,
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
from wool.exceptions import AuthenticationError, ConfigurationError, ConnectFailed
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

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


@given(st.integers(5, len(GOOD) - 1), st.sampled_from(string.ascii_letters))
def test_a_token_that_was_not_copied_well(position: int, letter: str) -> None:
    assume(GOOD[position] != letter)
    for damaged in (GOOD[:position], GOOD[:position] + letter + GOOD[position + 1 :]):
        with pytest.raises(ConfigurationError, match="was not copied as"):
            wool.Credentials.token(damaged)


@pytest.mark.parametrize("token", [b"x" * 32, 3, ["token"]])
def test_a_token_that_is_no_string(token: Any) -> None:
    with pytest.raises(wool.ConfigurationError, match="must be a string, not "):
        wool.Credentials.token(token)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the environment is always text")
def test_a_token_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"WOOL_TOKEN", GOOD.encode() + b"\xff")
    with pytest.raises(ConfigurationError, match="from WOOL_TOKEN was not copied as"):
        wool.Credentials.token()


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


def test_nothing_printed_is_secret() -> None:
    for credentials in (Token(GOOD), Token(GOOD, proxy="p"), PoolSecret(b"hush" * 8), Insecure()):
        for text in (repr(credentials), str(credentials), f"{credentials}"):
            assert GOOD not in text and "hush" not in text


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


@pytest.mark.parametrize("kept", ["node.pem", "node-key.pem"])
def test_half_of_a_certificate_is_left_alone(authority: Path, kept: str) -> None:
    (authority / {"node.pem": "node-key.pem", "node-key.pem": "node.pem"}[kept]).unlink()
    names = {path.name for path in authority.iterdir()}
    with pytest.raises(ConfigurationError, match=f"{kept} exists already"):
        certificates.make_certificate(authority, "node", [], 30)
    assert {path.name for path in authority.iterdir()} == names


def mutual(folder: Path, name: str | None = None) -> wool.Credentials:
    return wool.Credentials.tls(**{k: str(folder / f) for k, f in FILES.items()}, name=name)


def paths(folder: Path) -> dict[str, Any]:
    return {name: folder / file for name, file in FILES.items()}


def test_files_by_their_paths(authority: Path) -> None:
    """`Path`s will do; what is handed to workers is plain text."""
    credentials, same = wool.Credentials.tls(**paths(authority)), mutual(authority)
    assert isinstance(credentials, Authenticator) and isinstance(same, Authenticator)
    assert credentials.export() == same.export()
    through = wool.Credentials.token(GOOD, proxy="p", ca=authority / "ca.pem")
    assert isinstance(through, Authenticator)
    assert through.export()["ca"] == str(authority / "ca.pem")


@pytest.mark.parametrize("given", [b"cert.pem", 3, None], ids=repr)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_path(authority: Path, name: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be the path of a PEM file, not"):
        wool.Credentials.tls(**{**paths(authority), name: given})


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


def test_throw_away_certificates_work() -> None:
    credentials = Token(GOOD)
    acceptor = credentials.acceptor()
    assert acceptor.tls is not None
    with server(acceptor.tls) as port:
        der = ask(port, client(credentials))
    assert hashlib.sha256(der).digest() == acceptor.binding


def test_no_key_touches_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("needs files in memory")
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)
    listener(Token(GOOD)).server_context()


def test_mutual_tls(authority: Path) -> None:
    credentials = mutual(authority)
    with server(listener(credentials)) as port:
        ask(port, client(credentials))
        with pytest.raises(ssl.SSLError, match="(?i)mismatch|not valid for"):
            ask(port, client(credentials), host="other.example")
        with pytest.raises(ssl.SSLError, match="(?i)certificate.required|handshake.failure"):
            ask(port, client(Token(GOOD)))
        ask(port, client(mutual(authority, "localhost")), host="other.example")


def test_certificates_of_another_authority(authority: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    certificates.make_authority(foreign, 30)
    certificates.make_certificate(foreign, "node", ["127.0.0.1"], 30)
    for ours, theirs in ((authority, foreign), (foreign, authority)):
        with (
            server(listener(mutual(ours))) as port,
            pytest.raises(ssl.SSLError, match="(?i)verify failed|unknown ca"),
        ):
            ask(port, client(mutual(theirs)))
    # Whoever trusts the listener is still not trusted by it.
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    for file in ("node.pem", "node-key.pem"):
        (mixed / file).write_bytes((foreign / file).read_bytes())
    with (
        server(listener(mutual(authority))) as port,
        pytest.raises(ssl.SSLError, match="(?i)unknown ca"),
    ):
        ask(port, client(mutual(mixed)))


def test_expired_certificates(authority: Path) -> None:
    certificates.make_certificate(authority, "old", ["127.0.0.1"], -1)
    expired = wool.Credentials.tls(
        ca=str(authority / "ca.pem"),
        cert=str(authority / "old.pem"),
        key=str(authority / "old-key.pem"),
    )
    with (
        server(listener(expired)) as port,
        pytest.raises(ssl.SSLError, match="(?i)expired"),
    ):
        ask(port, client(mutual(authority)))
    with (
        server(listener(mutual(authority))) as port,
        pytest.raises(ssl.SSLError, match="(?i)expired"),
    ):
        ask(port, client(expired))


def replace(source: Path, target: Path) -> None:
    for name in FILES.values():
        (target / f"{name}.new").write_bytes((source / name).read_bytes())
        (target / f"{name}.new").replace(target / name)


def test_replaced_files_take_effect(authority: Path, tmp_path: Path) -> None:
    """Also a replaced authority: whom the old one has signed is not let in any more."""
    other = tmp_path / "other"
    certificates.make_authority(other, 30)
    certificates.make_certificate(other, "node", ["127.0.0.1"], 30)
    before, after = mutual(tmp_path / "certs"), mutual(other)
    old = tmp_path / "old"
    old.mkdir()
    replace(authority, old)
    with server(listener(before)) as port:
        first = ask(port, client(before))
        replace(other, authority)
        assert ask(port, client(before)) != first
        ask(port, client(after))
        with pytest.raises(ssl.SSLError, match="(?i)verify failed|unknown ca"):
            ask(port, client(mutual(old)))
        replace(old, authority)
        assert ask(port, client(before)) == first


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


def test_an_authority_that_is_being_written(authority: Path) -> None:
    """Between truncating and writing there is nothing in it."""
    path = authority / "ca.pem"
    files = MutualChannel(*(str(authority / f) for f in ("ca.pem", "node.pem", "node-key.pem")))
    before, content = files.client_pem(), path.read_bytes()
    path.write_bytes(b"")
    assert files.client_pem() == before
    path.write_bytes(content)
    assert files.client_pem() == before


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
        (lambda f: (f / "node.pem").write_text("?"), r"node\.pem .*former holds no cert"),
        (lambda f: (f / "node-key.pem").write_text("?"), "latter holds no private key"),
        (swap, "the former holds no certificate"),
        (damage, "one of them is damaged, or the key is encrypted"),
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


def test_an_authority_of_a_proxy_that_is_of_no_use(authority: Path) -> None:
    (authority / "ca.pem").write_text("?")
    with pytest.raises(ConfigurationError, match=r"ca\.pem holds no certificate in PEM form"):
        Token(GOOD, proxy="wool.example", ca=str(authority / "ca.pem"))


@pytest.mark.parametrize("remark", ["\ufeff", "# Főtanúsítvány\n"], ids=["mark", "remark"])
def test_authorities_with_remarks(authority: Path, remark: str) -> None:
    """Bundles have remarks in all languages, and some editors mark all files as UTF-8."""
    path = authority / "ca.pem"
    path.write_text(remark + path.read_text(), encoding="utf-8")
    credentials = mutual(authority)
    with server(listener(credentials)) as port:
        ask(port, client(credentials))
    pem = client(credentials).client_pem().authorities
    assert pem is not None and pem.isascii()
    tls = Token(GOOD, proxy="wool.example", ca=str(path)).client_tls()
    assert tls is not None and len(tls.client_context().get_ca_certs()) == 1


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="keys are read from memory on Linux")
async def test_no_descriptor_to_dial_with(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That passes, so the worker is not one that can never be used."""
    credentials = cast(Authenticator, mutual(authority))

    def fail(_: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", fail)
    route = Route(WebSocketTransport(Options()), local=False)
    greeting = hello(["cloudpickle"], security=credentials.kind)
    with pytest.raises(ConnectFailed, match=r"ws://127\.0\.0\.1:9: Too many open files"):
        await dial(route, "ws://127.0.0.1:9", greeting, credentials)


def test_an_encrypted_key_asks_for_no_password(authority: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    path = authority / "node-key.pem"
    key = s.load_pem_private_key(path.read_bytes(), None)
    how = s.BestAvailableEncryption(b"hush")
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, how))
    with pytest.raises(ConfigurationError, match="must not need a password"):
        mutual(authority)


def test_certificates_of_others_work(tmp_path: Path) -> None:
    """What trustme, or any other tool, has made is as good."""
    made = trustme.CA()
    node = made.issue_cert("127.0.0.1")
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    node.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
    node.private_key_pem.write_to_path(tmp_path / "node-key.pem")
    credentials = mutual(tmp_path)
    with server(listener(credentials)) as port:
        ask(port, client(credentials))


def test_a_certificate_for_a_name_that_ends_with_a_dot(authority: Path) -> None:
    """The dot says that the name is complete; nobody who verifies asks for it."""
    from cryptography import x509

    certificates.make_certificate(authority, "dot", ["node.example."], 30)
    made = x509.load_pem_x509_certificate((authority / "dot.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node.example"]


def test_files_of_wool_certs(authority: Path) -> None:
    for name in ("ca-key.pem", "node-key.pem"):
        assert stat.S_IMODE((authority / name).stat().st_mode) == 0o600
    before = {path: path.read_bytes() for path in authority.iterdir()}
    with pytest.raises(ConfigurationError, match=r"exists already"):
        certificates.make_authority(authority, 30)
    with pytest.raises(ConfigurationError, match=r"node-key\.pem exists already"):
        certificates.make_certificate(authority, "node", [], 30)
    assert {path: path.read_bytes() for path in authority.iterdir()} == before
    with pytest.raises(ConfigurationError, match="has no usable authority"):
        certificates.make_certificate(authority.parent, "node", [], 30)


def test_credentials_are_not_for_pickles() -> None:
    with pytest.raises(TypeError, match="credentials"):
        pickle.dumps(Token(GOOD))
