"""`wool.Worker`: a program of one's own that serves calls."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, count
from support.waiting import until
from wool import abc
from wool._backends.cloudpickle import Options, make
from wool._client.peer_pool import PeerPool
from wool._protocol import frames as f
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Insecure, Keyring, PoolSecret, SameUser, Token
from wool._transports import delegation
from wool._worker import server
from wool._worker.callerpeer import CallerPeer
from wool._worker.transports import Transports
from wool.abc import Connection
from wool.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectFailed,
    NoWorkersAvailable,
    WoolError,
    WorkerLost,
    WorkerStopped,
)
from wool.testing import Faults
from wool.testing._kit import descriptors

TOKEN = wool.Credentials.new_token()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WOOL_TOKEN", raising=False)
    monkeypatch.delenv("WOOL_TOKEN_FILE", raising=False)
    yield


@asynccontextmanager
async def calling(
    *addresses: str,
    credentials: Authenticator | None = None,
    local: Authenticator | None = None,
    patience: float = 30.0,
) -> AsyncIterator[PeerPool]:
    """Calls as a pool does that has found workers at these addresses."""
    pool = PeerPool(secrets.token_hex(4), CallOptions(quorum_timeout=patience))
    keyring = Keyring(local or SameUser(), credentials)
    pool.opened(Transports({}).routes, keyring, "cloudpickle", make(Options()))
    pool.set_members({a: wool.WorkerInfo(id=a, address=a) for a in addresses})
    try:
        with pool.view.use():
            yield pool
    finally:
        await pool.close_clients()


def unix(folder: Path) -> str:
    return f"unix://{folder}/sockets/w"


@wool.routine
async def where() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


@wool.routine
async def hold(entered: str) -> str:
    Path(entered).touch()
    try:
        await asyncio.sleep(3600)
    finally:
        Path(entered + ".left").touch()
    return "never"


async def test_calls_run_on_the_loop_of_the_worker(folder: Path) -> None:
    async with wool.Worker(address=unix(folder), tags=["x"]) as worker:
        assert worker.info.address == unix(folder) and worker.info.tags == {"x"}
        async with calling(worker.info.address):
            assert await add(1, 2) == 3
            assert await where() == (os.getpid(), threading.main_thread().name)
            assert [n async for n in count(3)] == [0, 1, 2]
    assert not os.path.exists(f"{folder}/sockets/w")


async def test_calls_get_to_finish_when_it_is_left(folder: Path) -> None:
    async with calling(unix(folder)):
        async with wool.Worker(address=unix(folder), drain_timeout=0.1):
            call = asyncio.create_task(hold(str(folder / "entered")))
            await until((folder / "entered").exists)
        with pytest.raises((WorkerStopped, asyncio.CancelledError)):
            await call
        assert (folder / "entered.left").exists()


async def test_left_with_an_exception_it_cancels_at_once(folder: Path) -> None:
    async with calling(unix(folder)):
        with pytest.raises(ZeroDivisionError):
            async with wool.Worker(address=unix(folder)):
                call = asyncio.create_task(hold(str(folder / "entered")))
                await until((folder / "entered").exists)
                raise ZeroDivisionError
        with pytest.raises((WorkerStopped, asyncio.CancelledError)):
            await call


async def test_one_in_place_of_another_that_was_told_to_stop(folder: Path) -> None:
    """News of the first is not true of the second."""
    with Faults() as faults:
        first = AsyncExitStack()
        worker = await first.enter_async_context(wool.Worker(address=unix(folder)))
        async with wool.WorkerPool(discovery=[unix(folder)]):
            worker.drain()
            await first.aclose()
            async with wool.Worker(address=unix(folder)):
                call = asyncio.create_task(hold(str(folder / "entered")))
                await until((folder / "entered").exists)
                faults.cut()
                with pytest.raises(WorkerLost):
                    await call


async def test_it_can_be_opened_again(folder: Path) -> None:
    worker = wool.Worker(address=unix(folder))
    seen: set[str] = set()
    for _ in range(3):
        async with worker, calling(worker.info.address):
            seen.add(worker.info.id)
            assert repr(worker) == f"<Worker: {unix(folder)}>"
            assert await add(1, 2) == 3
            with pytest.raises(WoolError, match="serving already"):
                await worker.__aenter__()
        assert repr(worker) == "<Worker: not serving>"
        with pytest.raises(WoolError, match="not serving"):
            _ = worker.info
        with pytest.raises(WoolError, match="not serving"):
            await worker.serve()
    assert len(seen) == 3
    assert "wool-io" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("scheme", ["unix", "ws+unix"])
async def test_the_place_of_one_that_was_killed(folder: Path, scheme: str) -> None:
    """Its socket is still there, and nobody listens."""
    (folder / "sockets").mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/sockets/w")
        sock.listen()
    address = f"{scheme}://{folder}/sockets/w"
    async with wool.Worker(address=address), calling(address):
        assert (await where())[0] == os.getpid()


class Broken(abc.Discovery):
    """Announces nobody."""

    @asynccontextmanager
    async def announce(self, worker: wool.WorkerInfo) -> AsyncIterator[abc.Announcement]:
        raise OSError("there is no network")
        yield  # pyright: ignore[reportUnreachable]

    def watch(self) -> Any:
        raise NotImplementedError


async def test_entering_in_vain_leaves_nothing_open(folder: Path) -> None:
    """If somebody else listens there, and if the discovery fails."""
    async with wool.Worker(address=unix(folder)):
        for discovery, error in ((None, ConnectFailed), (Broken(), WoolError)):
            address = unix(folder) if discovery is None else f"{unix(folder)}2"
            worker = wool.Worker(address=address, discovery=discovery)
            before = descriptors()
            for _ in range(5):
                with pytest.raises(error):
                    await worker.__aenter__()
            await until(lambda: descriptors() < before + 5)  # noqa: B023


async def test_serve_goes_on_until_cancelled(folder: Path) -> None:
    async with wool.Worker(address=unix(folder)) as worker:
        serving = asyncio.create_task(worker.serve())
        async with calling(worker.info.address):
            assert await add(1, 2) == 3
        assert not serving.done()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving


def connections() -> list[Any]:
    gc.collect()
    return [one for one in gc.get_objects() if issubclass(type(one), Connection)]


@pytest.mark.parametrize("address", ["unix", "grpc", "ws"])
async def test_nothing_is_kept_of_a_connection_that_is_refused(address: str, folder: Path) -> None:
    place = unix(folder) if address == "unix" else f"{address}://127.0.0.1:0"
    before = len(connections())
    async with wool.Worker(address=place, credentials=Token(TOKEN)) as worker:
        other = Token(TOKEN[::-1])
        async with calling(worker.info.address, credentials=other, local=PoolSecret()):
            with pytest.raises(AuthenticationError):
                await add(1, 2)
            await until(lambda: len(connections()) <= before)


# On a network


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_a_token(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)
    async with wool.Worker(address=f"{scheme}://127.0.0.1:0") as worker:
        async with calling(worker.info.address, credentials=Token(TOKEN)):
            assert await add(1, 2) == 3
        async with calling(worker.info.address, credentials=Token(wool.Credentials.new_token())):
            with pytest.raises(AuthenticationError, match="could not prove|refused") as caught:
                await add(1, 2)
            assert worker.info.address in str(caught.value)
        async with calling(worker.info.address):
            with pytest.raises(ConfigurationError, match="WOOL_TOKEN"):
                await add(1, 2)
        async with calling(worker.info.address, credentials=Insecure(), patience=1.0):
            with pytest.raises((AuthenticationError, NoWorkersAvailable)):
                await add(1, 2)


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]", "localhost"])
async def test_no_network_without_credentials(scheme: str, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes credentials: set WOOL_TOKEN"):
        wool.Worker(address=f"{scheme}://{host}:0")
    with pytest.raises(ConfigurationError, match=r"takes credentials: set WOOL_TOKEN"):
        wool.Worker(transport=scheme)


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_insecure_is_for_loopback_and_loud(scheme: str) -> None:
    for host in ("0.0.0.0", "[::]", "worker.example", "10.0.0.5"):
        with pytest.raises(ConfigurationError, match="loopback interface only"):
            wool.Worker(address=f"{scheme}://{host}:0", insecure=True)
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        wool.Worker(address=f"{scheme}://127.0.0.1:0", credentials=Token(TOKEN), insecure=True)
    with pytest.warns(RuntimeWarning, match="can run code as you") as told:
        worker = wool.Worker(address=f"{scheme}://127.0.0.1:0", insecure=True)
    assert [warning.filename for warning in told] == [__file__]
    async with worker:
        async with calling(worker.info.address, credentials=Insecure()):
            assert await add(1, 2) == 3
        async with calling(worker.info.address, credentials=Token(TOKEN), patience=1.0):
            with pytest.raises((AuthenticationError, NoWorkersAvailable)):
                await add(1, 2)


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_a_pool_calls_insecure_workers(scheme: str) -> None:
    with pytest.warns(RuntimeWarning):
        worker = wool.Worker(transport=scheme, insecure=True)
    async with worker:
        with pytest.warns(RuntimeWarning, match="whoever on this machine listens") as told:
            pool = wool.WorkerPool(discovery=[worker.info.address], insecure=True)
        assert [warning.filename for warning in told] == [__file__]
        async with pool:
            assert await add(1, 2) == 3


@pytest.mark.filterwarnings("ignore:a pool calls workers without authentication")
async def test_insecure_pools_stay_on_this_machine(token: str) -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        wool.WorkerPool(discovery="shm", credentials=Token(TOKEN), insecure=True)
    with pytest.raises(ConfigurationError, match="leave it out"):
        wool.WorkerPool(size=1, insecure=True)
    with pytest.raises(ConfigurationError, match="have to share credentials"):
        async with wool.WorkerPool(size=1, discovery="shm", transport="ws", insecure=True):
            pass
    with pytest.raises(NoWorkersAvailable, match=r"loopback interface only") as caught:
        async with wool.WorkerPool(discovery=["ws://192.0.2.1:7000"], insecure=True):
            pass
    assert "ws://192.0.2.1:7000" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "127.0.0.1:5000"}, "does not say which transport"),
        ({"address": "carrier://host:1"}, "no transport 'carrier'"),
        ({"discovery": "ws://h:1"}, r"the address of a worker.*discovery=\['ws://h:1'\]"),
        ({"address": "grpc://127.0.0.1:0", "transport": "ws"}, "for the transport 'grpc'"),
        ({"address": 5}, "address must be a string, not 5"),
        ({"address": "grpc://[::1:0", "insecure": True}, "loopback interface only"),
        ({"address": "unix://here/w"}, "write its whole path, unix:///path"),
        ({"advertise": b"ws://host:1"}, "advertise must be a string"),
        ({"advertise": "ws://host:1"}, "is for the transport 'ws', and the worker listens"),
        ({"advertise": "ws://0.0.0.0:1", "transport": "ws"}, "but not dialled"),
        ({"advertise": "ws://host:0", "transport": "ws"}, "but not dialled"),
        ({"discovery": ["ws://host:1"]}, r"the name of one, or a wool.abc.Discovery, not \["),
        ({"credentials": "secret"}, "must be made with"),
        ({"concurrency": 0}, "concurrency"),
        ({"serializer": "cloudpickel"}, "Did you mean 'cloudpickle'"),
    ],
)
async def test_arguments_of_no_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WoolError, match=message):
        async with wool.Worker(**options):
            pass


@pytest.mark.parametrize("made", [wool.Worker, wool.WorkerPool])
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("gpu", "several labels, not the string 'gpu'"),
        (None, "several labels, not None"),
        ([1], "and 1 is none"),
        ([""], "and '' is none"),
        (["x" * 1000, "y" * 1049], "the tags have 2049 bytes, and 2048 is the most"),
    ],
)
def test_tags_of_no_use(made: Any, tags: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(tags=tags)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discovery": 5}, "discovery must be several addresses, or a name, not 5"),
        ({"ship": 5}, "ship must be several modules, not 5"),
        ({"exclude": 5}, "exclude must be several names, not 5"),
    ],
)
def test_arguments_of_a_pool_of_no_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wool.WorkerPool(**options)


async def test_a_caller_that_comes_as_the_worker_leaves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been welcomed and has sent calls: they are given back, for others to run."""
    welcomed, go, real = threading.Event(), threading.Event(), server.accept

    async def accept(*args: Any) -> Any:
        session = await real(*args)
        if not welcomed.is_set():
            welcomed.set()
            await asyncio.to_thread(go.wait)
        return session

    async with wool.Worker(address=f"unix://{folder}/sockets/stays") as other:
        leaving = wool.Worker(address=unix(folder))
        await leaving.__aenter__()
        with monkeypatch.context() as patched:
            patched.setattr("wool._worker.server.accept", accept)
            async with calling(leaving.info.address) as pool:
                call = asyncio.ensure_future(add(1, 2))
                await asyncio.to_thread(welcomed.wait)
                left = asyncio.ensure_future(leaving.__aexit__(None, None, None))
                await until(lambda: leaving._service._server.draining, what="the drain")
                address = other.info.address
                pool.set_members(
                    {**pool.members, address: wool.WorkerInfo(id=address, address=address)}
                )
                go.set()
                async with asyncio.timeout(20):
                    assert await call == 3
                    await left


@wool.routine(prefetch=10)
async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_answers_of_both_threads_keep_their_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is about to send a value that was posted, as the stream ends on the other."""
    sending, ended = threading.Event(), threading.Event()
    answer, send, send_now = CallerPeer.answer, CallerPeer.send, CallerPeer.send_now

    def answer_and_tell(caller: CallerPeer, frame: f.Answer, *args: Any, more: bool) -> None:
        answer(caller, frame, *args, more=more)
        if isinstance(frame, f.Value):
            sending.wait(20)
        else:
            ended.set()

    def wait_for_the_end() -> None:
        if threading.current_thread().name == "wool-io":
            sending.set()
            ended.wait(20)

    def send_late(caller: CallerPeer, *args: Any) -> None:
        wait_for_the_end()
        send(caller, *args)

    def send_now_late(caller: CallerPeer, *args: Any) -> bool:
        wait_for_the_end()
        return send_now(caller, *args)

    monkeypatch.setattr(CallerPeer, "answer", answer_and_tell)
    monkeypatch.setattr(CallerPeer, "send", send_late)
    monkeypatch.setattr(CallerPeer, "send_now", send_now_late)
    async with wool.Worker(address=unix(folder)) as worker, calling(worker.info.address):
        async with asyncio.timeout(40):
            assert [number async for number in numbers(1)] == [0]


ran: list[int] = []


@wool.routine
async def run(number: int) -> None:
    ran.append(number)


async def test_a_call_that_is_read_as_the_drain_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another thread than the drain: it is given back, as if it had come a moment later."""
    suits, armed, drained = CallerPeer._suits, threading.Event(), threading.Event()

    def suit_and_drain(caller: CallerPeer, frame: f.Frame) -> bool:
        suited = suits(caller, frame)
        if suited and armed.is_set() and not drained.is_set():
            server: Any = caller._host

            def drain() -> None:
                server.start_drain()
                drained.set()

            server.call(drain)
            drained.wait(20)
        return suited

    monkeypatch.setattr(CallerPeer, "_suits", suit_and_drain)
    monkeypatch.setattr(delegation, "LOOK", 60)  # however slow the machine
    async with wool.Worker(address=unix(folder)) as worker, calling(worker.info.address) as pool:
        number = 0
        await run(number)
        (caller,) = worker._service._server._callers
        while not caller.session.connection.delegated:  # it takes a few that find it idle
            number += 1
            await run(number)
        pool.options = CallOptions(quorum_timeout=0.2)  # for somebody else to run it
        armed.set()
        async with asyncio.timeout(20):
            with pytest.raises(wool.WoolError):
                await run(number + 1)
    assert ran == list(range(number + 1))
