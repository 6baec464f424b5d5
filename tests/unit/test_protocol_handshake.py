"""The handshake: who gets through, and how everyone else is turned away."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.protocolkit import HANDSHAKING, frames, instances
from wool._protocol import frames as f
from wool._protocol import handshake as h
from wool._protocol.handshake import Handshake, Role
from wool.exceptions import AuthenticationError, ProtocolError, VersionMismatch

SECRET = b"correct horse battery staple"
WELCOME = f.Welcome(id="w1", host="here", pid=7, tags=["gpu"], load=2)
Turned = (AuthenticationError, VersionMismatch, ProtocolError)


def hello(role: Role, **others: Any) -> f.Hello:
    fields: dict[str, Any] = {
        "protocols": list(h.PROTOCOLS),
        "nonce": os.urandom(32),
        "wool": "0.1.0",
        "python": "3.11",
        "serializers": ["cloudpickle", "dill"],
        "process": b"p" * 16,
        "window": 4 << 20,
        "chunk": 256 << 10,
    }
    if role is Role.DIALLER:
        fields |= {"pool": "pool", "serializer": "cloudpickle"}
    return f.Hello(**fields | others)


def side(role: Role, secret: bytes = SECRET, binding: bytes = b"", **others: Any) -> Handshake:
    welcome = WELCOME if role is Role.ACCEPTOR else None
    return Handshake(role, hello(role, **others), secret, binding=binding, welcome=welcome)


def pair(**others: Any) -> tuple[Handshake, Handshake]:
    return side(Role.DIALLER, **others), side(Role.ACCEPTOR, **others)


def run(dialler: Handshake, acceptor: Handshake, tamper: Any = None) -> list[tuple[Role, bytes]]:
    """Carries messages to and fro; returns all that were sent, with who sent them."""
    under_way = [(dialler, m) for m in dialler.start()] + [(acceptor, m) for m in acceptor.start()]
    sent: list[tuple[Role, bytes]] = []
    while under_way:
        sender, message = under_way.pop(0)
        sent.append((sender.role, message))
        receiver = acceptor if sender is dialler else dialler
        if tamper is not None:
            message = tamper(sender.role, message)
        under_way += [(receiver, answer) for answer in receiver.receive(message)]
    return sent


def kind(message: bytes) -> str:
    return type(f.decode_handshake(message)).__name__


# Getting through ------------------------------------------------------------------------------


def test_both_sides_get_through() -> None:
    dialler, acceptor = pair(binding=b"certificate")
    sent = [(role, kind(message)) for role, message in run(dialler, acceptor)]
    assert dialler.complete
    assert acceptor.complete
    assert dialler.welcome == WELCOME
    assert dialler.peer is not None
    assert acceptor.peer is not None
    assert acceptor.peer.pool == "pool"
    assert [what for who, what in sent if who is Role.DIALLER] == ["Hello", "Proof"]
    assert [what for who, what in sent if who is Role.ACCEPTOR] == ["Hello", "Proof", "Welcome"]


def test_the_dialler_waits_for_the_welcome() -> None:
    dialler, acceptor = pair()
    acceptor.receive(dialler.start()[0])
    proof, welcome = acceptor.receive(dialler.receive(acceptor.start()[0])[0])
    dialler.receive(proof)
    assert not dialler.complete
    dialler.receive(memoryview(welcome))
    assert dialler.complete


def test_the_proof_is_what_the_documentation_says() -> None:
    dialler, acceptor = pair(binding=b"fingerprint")
    sent = run(dialler, acceptor)
    first, second, proof = sent[0][1], sent[1][1], sent[2][1]
    text = (
        b"wool 1 dialler\0"
        + hashlib.sha256(first).digest()
        + hashlib.sha256(second).digest()
        + b"fingerprint"
    )
    frame = f.decode_handshake(proof)
    assert isinstance(frame, f.Proof)
    assert frame.mac == hmac.digest(SECRET, text, "sha256")


@pytest.mark.parametrize("role", Role)
def test_there_must_be_a_secret(role: Role) -> None:
    with pytest.raises(ValueError, match="secret"):
        side(role, secret=b"")


def test_nonces_are_fresh() -> None:
    assert len({hello(Role.DIALLER).nonce for _ in range(100)}) == 100
    assert len(hello(Role.DIALLER).nonce) == 32


# Not knowing the secret -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SECRET, b"other"), (b"other", SECRET), (SECRET, SECRET + b"x")]
)
def test_a_wrong_secret(ours: bytes, theirs: bytes) -> None:
    dialler, acceptor = side(Role.DIALLER, ours), side(Role.ACCEPTOR, theirs)
    with pytest.raises(AuthenticationError, match="secret"):
        run(dialler, acceptor)
    assert not dialler.complete
    assert not acceptor.complete


def test_another_channel() -> None:
    dialler = side(Role.DIALLER, binding=b"certificate of the man in the middle")
    with pytest.raises(AuthenticationError):
        run(dialler, side(Role.ACCEPTOR, binding=b"certificate"))


def test_a_replayed_proof() -> None:
    dialler, acceptor = pair()
    recorded = [message for role, message in run(dialler, acceptor) if role is Role.DIALLER]
    acceptor = side(Role.ACCEPTOR)
    assert acceptor.receive(recorded[0]) == []
    with pytest.raises(AuthenticationError):
        acceptor.receive(recorded[1])


def test_a_replayed_acceptor() -> None:
    dialler, acceptor = pair()
    recorded = [message for role, message in run(dialler, acceptor) if role is Role.ACCEPTOR]
    dialler = side(Role.DIALLER)
    dialler.receive(recorded[0])
    with pytest.raises(AuthenticationError):
        dialler.receive(recorded[1])


def test_the_time_of_a_comparison_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    dialler, acceptor = pair()
    sent = run(dialler, acceptor)
    proofs = [f.decode_handshake(message) for _, message in sent if kind(message) == "Proof"]
    assert compared == [(proof.mac, proof.mac) for proof in proofs]
    assert len(proofs) == 2


def test_a_reflected_proof() -> None:
    """Whoever sends back what it is sent shows no knowledge of the secret."""
    dialler = side(Role.DIALLER)
    (proof,) = dialler.receive(dialler.start()[0])
    with pytest.raises(AuthenticationError):
        dialler.receive(proof)

    acceptor = side(Role.ACCEPTOR, serializer="cloudpickle")
    acceptor.receive(acceptor.start()[0])
    with pytest.raises(AuthenticationError):
        acceptor.receive(acceptor._prove())


def test_one_side_used_against_another() -> None:
    """A proof made for one worker is of no use at another."""
    dialler, victim = side(Role.DIALLER), side(Role.ACCEPTOR)
    (proof,) = dialler.receive(side(Role.ACCEPTOR).start()[0])
    victim.receive(dialler.start()[0])
    with pytest.raises(AuthenticationError):
        victim.receive(proof)


@pytest.mark.parametrize("role", Role)
def test_two_of_the_same_role(role: Role) -> None:
    one, other = side(role, serializer="dill"), side(role, serializer="dill")
    (greeting,) = other.start()
    one.receive(greeting)
    forged = Handshake.__new__(Handshake)
    forged.__dict__.update(other.__dict__)
    forged.receive(one.start()[0])
    with pytest.raises(AuthenticationError):
        one.receive(forged._prove())


@given(instances(f.Hello), st.sampled_from(list(Role)), st.data())
def test_a_hello_changed_on_the_way(random: f.Hello, role: Role, data: st.DataObject) -> None:
    """Each field of each `Hello` is covered by the proofs."""
    name = data.draw(st.sampled_from(f.Hello.__struct_fields__))

    def tamper(sender: Role, message: bytes) -> bytes:
        frame = f.decode_handshake(message)
        if sender is not role or not isinstance(frame, f.Hello):
            return message
        changed = msgspec.structs.replace(frame, **{name: getattr(random, name)})
        return f.encode(changed)

    dialler, acceptor = pair()
    if getattr(acceptor._mine if role is Role.ACCEPTOR else dialler._mine, name) == getattr(
        random, name
    ):
        return
    with pytest.raises(Turned) as caught:
        run(dialler, acceptor, tamper)
    assert not dialler.complete
    assert not acceptor.complete
    if name in ("nonce", "process", "wool", "pool"):
        assert caught.type is AuthenticationError


def test_a_hello_written_in_another_way() -> None:
    """The proofs cover bytes, not their meaning: a field more is noticed as well."""

    def tamper(sender: Role, message: bytes) -> bytes:
        if kind(message) != "Hello":
            return message
        header = msgspec.msgpack.encode([*msgspec.msgpack.decode(message[4:]), 1])
        return len(header).to_bytes(4, "little") + header

    with pytest.raises(AuthenticationError):
        run(*pair(), tamper)


# Not fitting together -------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"protocols": [2, 3]}, "upgrade"),
        ({"protocols": []}, "upgrade"),
        ({"python": "3.13"}, "3.13"),
    ],
)
def test_versions(role: Role, others: dict[str, Any], named: str) -> None:
    """Both sides see it, before anyone has proved anything."""
    odd = side(role, **others)
    other = side(Role.ACCEPTOR if role is Role.DIALLER else Role.DIALLER)
    for one, two in ((odd, other), (other, odd)):
        with pytest.raises(VersionMismatch, match=named):
            one.receive(two.start()[0])


def test_a_newer_peer_that_still_speaks_this_version() -> None:
    dialler, acceptor = side(Role.DIALLER, protocols=[1, 2], wool="2.0"), side(Role.ACCEPTOR)
    run(dialler, acceptor)
    assert dialler.complete
    assert acceptor.complete


def test_a_dialler_that_makes_no_calls() -> None:
    """It needs neither the Python nor a serializer of the worker."""
    dialler, acceptor = side(Role.DIALLER, serializer="", python="3.9"), side(Role.ACCEPTOR)
    run(dialler, acceptor)
    assert dialler.complete
    assert acceptor.complete


def test_serializers() -> None:
    dialler = side(Role.DIALLER, serializer="marshal")
    acceptor = side(Role.ACCEPTOR)
    for one, two in ((dialler, acceptor), (acceptor, dialler)):
        with pytest.raises(VersionMismatch, match="'marshal', only cloudpickle, dill"):
            one.receive(two.start()[0])


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("others", [{"window": 1023}, {"chunk": 1023}, {"chunk": 0}])
def test_windows_that_would_never_end(role: Role, others: dict[str, Any]) -> None:
    odd = side(role, **others)
    other = side(Role.ACCEPTOR if role is Role.DIALLER else Role.DIALLER)
    with pytest.raises(ProtocolError, match="1 KiB"):
        other.receive(odd.start()[0])


# Being told why -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "error", [VersionMismatch("new"), AuthenticationError("who"), ProtocolError("what")]
)
def test_the_peer_learns_why(role: Role, error: Exception) -> None:
    with pytest.raises(type(error), match=f"refused the connection: {error}"):
        side(role).receive(h.refusal(error))


def test_a_refusal_is_always_short_enough() -> None:
    assert len(h.refusal(VersionMismatch("\U0001f411" * 10_000))) <= h.MAX_MESSAGE


def test_a_refusal_of_an_unknown_kind() -> None:
    with pytest.raises(ProtocolError, match="stopping"):
        side(Role.DIALLER).receive(f.encode(f.Refuse("new code", "stopping")))


# Saying the wrong thing -----------------------------------------------------------------------


def stages() -> list[tuple[str, Handshake, type[f.Frame] | None]]:
    """Returns both sides at each stage, and which frame is expected there."""
    found: list[tuple[str, Handshake, type[f.Frame] | None]] = [
        ("dialler at the start", side(Role.DIALLER), f.Hello),
        ("acceptor at the start", side(Role.ACCEPTOR), f.Hello),
    ]
    dialler, acceptor = pair()
    dialler.receive(acceptor.start()[0])
    acceptor.receive(dialler.start()[0])
    found += [("dialler", dialler, f.Proof), ("acceptor", acceptor, f.Proof)]
    dialler, acceptor = pair()
    (proof,) = dialler.receive(acceptor.start()[0])
    acceptor.receive(dialler.start()[0])
    dialler.receive(acceptor.receive(proof)[0])
    found += [("dialler that knows", dialler, f.Welcome), ("acceptor at the end", acceptor, None)]
    dialler, acceptor = pair()
    run(dialler, acceptor)
    found += [("dialler at the end", dialler, None)]
    return found


@given(st.data())
def test_out_of_order(data: st.DataObject) -> None:
    for _, party, expected in stages():
        frame = data.draw(frames([kind for kind in HANDSHAKING if kind is not expected]))
        complete = party.complete
        with pytest.raises(ProtocolError if not isinstance(frame, f.Refuse) else Turned):
            party.receive(f.encode(frame))
        assert party.complete is complete


@given(st.binary(max_size=200))
def test_any_bytes(message: bytes) -> None:
    for _, party, _ in stages():
        with pytest.raises(Turned):
            party.receive(message)


@given(st.integers(0, 2), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1))
def test_bytes_changed_on_the_way(which: int, changes: list[tuple[int, int]]) -> None:
    """Changed messages are refused, or were not changed where it counts; nobody is let in."""
    count = -1

    def tamper(sender: Role, message: bytes) -> bytes:
        nonlocal count
        count += 1
        if count != which:
            return message
        changed = bytearray(message)
        for position, byte in changes:
            changed[position % len(changed)] = byte
        return bytes(changed) if changed != message else b""

    dialler, acceptor = pair()
    with pytest.raises(Turned):
        run(dialler, acceptor, tamper)
    assert not dialler.complete
    assert not acceptor.complete


def test_too_much() -> None:
    for _, party, _ in stages():
        for message in (bytes(4097), f.encode(f.Refuse("", "x" * 4096))):
            with pytest.raises(ProtocolError, match="bytes during the handshake"):
                party.receive(message)
