"""The secret itself: wrong ones, proofs that are used again, and where it must not be seen."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

import wool
from security.siegekit import (
    NETWORK,
    RAW,
    TOKEN,
    Target,
    besieged,
    calling,
    every_channel,
)
from security.siegepeers import Caller, failure, greeting, read, recorded, refused
from security.siegeproxies import listening
from support.jobs import add
from wool import abc
from wool._protocol import frames as f
from wool._protocol.handshake import refusal
from wool._security.credentials import Authenticator, PoolSecret, Token
from wool.exceptions import AuthenticationError


@every_channel
async def test_wrong_secret(target: Target) -> None:
    """Whoever has another one is told so, on either side, and which worker it is about."""
    async with besieged(target):
        stranger = await Caller.at(target, target.wrong)
        await stranger.say(await stranger.proof())
        seen = await stranger.end()
        assert "Refuse(authentication)" in seen
        async with calling(target.address, target.wrong):
            error = await failure(add(1, 2))
    assert type(error) is AuthenticationError
    assert target.address in str(error) and "could not prove that it knows" in str(error)
    assert not RAW.search(str(error) + seen)


@every_channel
async def test_a_refusal_that_comes_at_once(target: Target) -> None:
    """Is heard, even if the worker is gone before the caller has proved anything."""

    async def refuse(connection: abc.Connection) -> None:
        await connection.receive()
        hello = f.encode(greeting(target.credentials))
        await connection.send([[hello], [refusal(AuthenticationError("not you"))]])

    async with listening(target.address, refuse, secure=not target.local) as address:
        async with calling(address, target.credentials):
            error = await failure(add(1, 2))
    assert type(error) is AuthenticationError and "not you" in str(error)


@every_channel
async def test_a_replayed_proof(target: Target) -> None:
    """The words of a legitimate caller are of no use to anybody else."""
    messages = await recorded(target)
    async with besieged(target):
        seen = await refused(target, *messages)
        assert "Refuse(authentication)" in seen and "Return" not in seen
        # Waiting for the worker's hello first, or sending the same again, changes nothing.
        stranger = await Caller.at(target)
        await stranger.say(messages[0])
        assert [type(frame) for frame in await stranger.hear()] == [f.Hello]
        await stranger.say(messages[1], messages[2])
        assert await stranger.end() == seen
        assert await refused(target, *messages) == seen


@every_channel
@pytest.mark.parametrize("trick", ["replays", "reflects", "skips"])
async def test_a_false_worker(target: Target, trick: str) -> None:
    """Nobody without the secret can take a worker's place, whatever it has overheard."""
    legitimate = await Caller.at(target)
    said = await legitimate.enter()
    await legitimate.leave()
    assert [type(read(message)) for message in said] == [f.Hello, f.Proof, f.Welcome]
    heard: list[type[f.Frame]] = []

    async def pretend(connection: abc.Connection) -> None:
        if trick == "replays":
            await connection.send([[message] for message in said])
        elif trick == "skips":
            await connection.send([[said[0]], [said[2]]])
        while True:
            messages = [bytes(message) for message in await connection.receive()]
            heard.extend(type(read(message)) for message in messages)
            if trick == "reflects":
                welcome = [said[2]] if heard[-1] is f.Proof else []
                await connection.send([[message] for message in [*messages, *welcome]])

    async with besieged(target):
        async with listening(target.address, pretend, secure=not target.local) as address:
            async with calling(address, target.credentials):
                error = await failure(add(1, 2))
    assert f.Open not in heard and f.Peers not in heard
    assert isinstance(error, wool.WoolError) and address in str(error)
    assert not RAW.search(str(error))


# Where it must not be seen


def public(pid: int) -> bytes:
    """Returns what other processes of the user, and partly of others, can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


@every_channel
async def test_the_secret_of_a_pool_is_not_in_processes(target: Target) -> None:
    if not target.local:
        assert TOKEN.encode() not in Path(f"/proc/{target.pid}/cmdline").read_bytes()
        return
    text = public(target.pid) + public(target.process.pid)
    for form in (target.secret, target.secret.hex().encode(), repr(target.secret).encode()):
        assert form not in text


@pytest.mark.parametrize("transport", NETWORK)
async def test_a_token_of_a_program_is_not_in_its_workers(transport: str) -> None:
    credentials = wool.Credentials.token(TOKEN)
    async with wool.WorkerPool(size=1, transport=transport, credentials=credentials) as pool:
        assert await add(1, 2) == 3
        assert TOKEN.encode() not in public(pool.workers[0].pid)


@every_channel
async def test_failures_do_not_tell_secrets(
    target: Target, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither errors, nor their tracebacks with variables, nor logs, nor what peers are told."""
    wrong = target.wrong
    async with calling(target.address, wrong):
        error = await failure(add(1, 2))
    stranger = await Caller.at(target, wrong)
    await stranger.say(await stranger.proof())
    told = await stranger.end()
    texts = [told, target.errors, caplog.text, *capfd.readouterr()]
    cause: BaseException | None = error
    while cause is not None:
        summary = traceback.TracebackException.from_exception(cause, capture_locals=True)
        texts += [str(cause), repr(cause), *summary.format()]
        cause = cause.__cause__ or cause.__context__
    for credentials in (wrong, target.credentials):
        for secret in forms(credentials.secret):
            assert not [text for text in texts if secret in text]
    assert str(Path(wool.__file__).parent) not in told and 'File "' not in told


def forms(secret: bytes) -> list[str]:
    """How a secret may be written."""
    return [secret.hex(), repr(secret)[2:-1], secret.decode("latin-1")]


@pytest.mark.parametrize("credentials", [Token(TOKEN), Token(TOKEN, proxy="p"), PoolSecret()])
def test_credentials_do_not_show_secrets(credentials: Authenticator) -> None:
    shown = [repr(credentials), str(credentials), f"{credentials}", repr(credentials.acceptor())]
    for secret in forms(credentials.secret):
        assert not [text for text in shown if secret in text]
