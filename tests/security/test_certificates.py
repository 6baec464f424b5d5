"""Mutual TLS as callers and workers meet it: expired, foreign and replaced certificates."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

import wool
from security.siegekit import NETWORK, RAW, TOKEN, calling
from security.siegepeers import failure
from security.siegeproxies import unverified
from security.siegewire import Wire
from support.jobs import add, hold, pid
from support.waiting import pid_in, until
from wool._security.certificates import make_authority, make_certificate
from wool._security.credentials import Credentials, Insecure, Token
from wool.exceptions import AuthenticationError, NoWorkersAvailable, WoolError

pytestmark = pytest.mark.parametrize("transport", NETWORK)


@dataclass
class Authority:
    """An authority in a folder of its own, and machines that have its certificate."""

    folder: Path

    def __post_init__(self) -> None:
        make_authority(self.folder, 30)

    def machine(
        self, name: str, *hosts: str, days: int = 30, trusts: Authority | None = None
    ) -> Credentials:
        """Gives a machine a certificate for these hosts, 127.0.0.1 by default."""
        make_certificate(self.folder, name, hosts or ["127.0.0.1"], days)
        return wool.Credentials.tls(
            ca=str((trusts or self).folder / "ca.pem"),
            cert=str(self.folder / f"{name}.pem"),
            key=str(self.folder / f"{name}-key.pem"),
        )

    def use(self, name: str, place: Path) -> Credentials:
        """Puts the files of a machine where another one's are."""
        return put(self.folder, name, place)


def put(folder: Path, name: str, place: Path) -> Credentials:
    """Copies an authority, a certificate and its key, each in one step."""
    place.mkdir(exist_ok=True)
    files = {"ca.pem": "ca.pem", f"{name}.pem": "cert.pem", f"{name}-key.pem": "key.pem"}
    for source, file in files.items():
        (place / "new").write_bytes((folder / source).read_bytes())
        (place / "new").replace(place / file)
    return wool.Credentials.tls(
        ca=str(place / "ca.pem"), cert=str(place / "cert.pem"), key=str(place / "key.pem")
    )


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


@asynccontextmanager
async def serving(transport: str, credentials: Credentials) -> AsyncIterator[str]:
    """A worker on the network; yields its address."""
    address = f"{transport}://127.0.0.1:0"
    async with wool.Worker(address=address, credentials=credentials) as worker:
        yield worker.info.address


async def refusal(
    address: str, credentials: Credentials, says: str = "certificate|demands one|accept ours"
) -> WoolError:
    """Calls; it must be refused, in words that users can do something about.

    What is wrong with the worker's certificate is known here. It refuses ours with an alert, which
    may get lost as it hangs up; and who hangs up may be back soon.
    """
    for patience in (1, 20):  # the second for a machine that stalls
        async with calling(address, credentials, patience=patience):
            error = await failure(add(1, 2))
        if re.search(says, str(error), re.IGNORECASE):
            break
    assert type(error) in (AuthenticationError, NoWorkersAvailable), repr(error)
    assert address in str(error) and not RAW.search(str(error))
    assert re.search(says, str(error), re.IGNORECASE), str(error)
    return error


FLAWS = {
    "expired": "expired",
    "foreign": "authorit|issuer",
    "for another host": "mismatch|not valid for|another",
    "self-signed": "self-signed|authorit|issuer",
}


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_worker_with_a_bad_certificate(
    transport: str, ours: Authority, theirs: Authority, flaw: str
) -> None:
    worker = {
        "expired": lambda: ours.machine("worker", days=-1),
        "foreign": lambda: theirs.machine("worker", trusts=ours),
        "for another host": lambda: ours.machine("worker", "other.example"),
        "self-signed": lambda: Authority(ours.folder / "own").machine("worker", trusts=ours),
    }[flaw]()
    caller = ours.machine("caller")
    async with serving(transport, worker) as address:
        error = await refusal(address, caller, FLAWS[flaw])
        assert type(error) is AuthenticationError


@pytest.mark.parametrize("flaw", ["expired", "foreign"])
async def test_a_caller_with_a_bad_certificate(
    transport: str, ours: Authority, theirs: Authority, flaw: str
) -> None:
    caller = {
        "expired": lambda: ours.machine("caller", days=-1),
        "foreign": lambda: theirs.machine("caller", trusts=ours),
    }[flaw]()
    async with serving(transport, ours.machine("worker")) as address:
        await refusal(address, caller)
        async with calling(address, ours.machine("other")):
            assert await add(1, 2) == 3


async def test_a_caller_without_a_certificate(transport: str, ours: Authority) -> None:
    async with serving(transport, ours.machine("worker")) as address:
        await refusal(address, Token(TOKEN))
        async with calling(address, Insecure()):
            clear = await failure(add(1, 2))
        assert not RAW.search(str(clear))
        async with calling(address, ours.machine("other")):
            assert await add(1, 2) == 3


async def test_replaced_files(
    transport: str, ours: Authority, theirs: Authority, tmp_path: Path, folder: Path
) -> None:
    """A running worker gets another authority: new connections are of it, calls go on."""
    old = ours.machine("caller")
    ours.machine("worker")
    new = theirs.machine("caller")
    theirs.machine("worker")
    async with serving(transport, ours.use("worker", tmp_path / "worker")) as address:
        async with calling(address, old):
            held = asyncio.create_task(hold(folder / "pid", folder / "release"))
            worker = await pid_in(folder / "pid")
            theirs.use("worker", tmp_path / "worker")
            async with calling(address, new):
                assert await pid() == worker
            await refusal(address, old)
            assert await add(1, 2) == 3, "on the connection that is open"
            (folder / "release").touch()
            assert await held == worker


async def test_an_expired_certificate_that_is_replaced(
    transport: str, ours: Authority, tmp_path: Path
) -> None:
    """A worker that ran into the end of its certificate needs no restart, nor does its caller."""
    ours.machine("old", days=-1)
    ours.machine("new")
    caller = ours.use("old", tmp_path / "caller")
    async with serving(transport, ours.use("old", tmp_path / "worker")) as address:
        await refusal(address, caller)
        ours.use("new", tmp_path / "worker")
        await refusal(address, caller)
        ours.use("new", tmp_path / "caller")
        async with calling(address, caller):
            assert await add(1, 2) == 3


def let_in(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """Whether somebody gets through TLS, and a session to resume later."""
    try:
        with Wire(address, context=context, session=session) as wire:
            wire.begin()
            if address.startswith("grpc") and not wire.answer():
                return False, None
            return True, wire.session
    except (OSError, AssertionError):
        return False, None


@pytest.mark.parametrize("change", ["authority replaced", "expired"])
async def test_a_session_that_is_resumed(
    transport: str, theirs: Authority, tmp_path: Path, change: str
) -> None:
    """A ticket of TLS from better days is no way around the certificate."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = tmp_path / "files"
    worker = made.issue_cert("127.0.0.1")
    (tmp_path / "worker.pem").write_bytes(worker.cert_chain_pems[0].bytes())
    (tmp_path / "worker-key.pem").write_bytes(worker.private_key_pem.bytes())
    theirs.machine("worker")

    def lasting(seconds: float) -> tuple[ssl.SSLContext, dt.datetime]:
        """Somebody with a certificate that expires."""
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        context = unverified()
        made.issue_cert("caller", not_after=ends).configure_cert(context)
        return context, ends

    async def visit(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        return await asyncio.to_thread(let_in, address, context, session)

    async with serving(transport, put(tmp_path, "worker", files)) as address:
        # One that lasts for a moment may have expired before it was shown.
        for seconds in (2, 5, 15) if change == "expired" else (60,):
            context, ends = lasting(seconds)
            entered, session = await visit(None)
            if entered:
                break
        assert entered
        if change == "expired":
            await until(lambda: dt.datetime.now(dt.UTC) > ends)
        else:
            theirs.use("worker", files)
        assert await visit(None) == (False, None)
        entered, _ = await visit(session)
    assert not entered
