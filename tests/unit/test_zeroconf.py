"""The discovery `zeroconf`: what workers tell, who hears it, and what strangers cannot upset."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import ifaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import RecordUpdateListener
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from wool.abc import Changed, ConfigurationError, Joined, Left, Snapshot, WorkerInfo
from wool_zeroconf import Options, _description, _interfaces
from wool_zeroconf._description import Description
from wool_zeroconf._discovery import ZeroconfDiscovery

WORKER = WorkerInfo(
    id="00c0ffee00c0ffee",
    address="grpc://127.0.0.1:7000",
    tags=frozenset({"gpu", "a, b"}),
    host="host.example",
    pid=4711,
    python="3.11",
    version="0.1.0",
    serializers=("cloudpickle", "dill"),
)


@pytest.fixture
def options() -> Options:
    """Settings for a namespace that nobody else has, on this machine alone."""
    return Options(namespace=secrets.token_hex(8), interfaces=("127.0.0.1",))


@pytest.fixture
def ours(options: Options, nothing_left: None) -> ZeroconfDiscovery:
    return ZeroconfDiscovery(options)


@pytest.fixture
def theirs(options: Options) -> ZeroconfDiscovery:
    """Another one, with sockets of its own."""
    return ZeroconfDiscovery(options)


@pytest.fixture
def nothing_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Checks that a test leaves no file open and no thread running, and that nothing was logged."""
    caplog.set_level(logging.INFO)
    files, threads = open_sockets(), set(threading.enumerate())
    yield
    gc.collect()
    assert open_sockets() <= files  # those of tests before may have gone meanwhile
    assert set(threading.enumerate()) - threads == set()
    assert caplog.records == []


def open_sockets() -> int:
    """How many sockets for datagrams of IP there are."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=int(number))
        except OSError:
            continue
        found += sock.family in (socket.AF_INET, socket.AF_INET6)
        sock.detach()
    return found


async def upcoming(events: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(30):
        return await anext(events)


async def nothing_but(events: AsyncIterator[Any], worker: WorkerInfo) -> None:
    """Checks that nothing has been told when this worker joins."""
    assert await upcoming(events) == Joined(worker)


# Addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("grpc://127.0.0.1:7000", "other machines cannot reach it"),
        ("grpc://[::1]:7000", "other machines cannot reach it"),
        ("grpc://[::ffff:127.0.0.1]:7000", "other machines cannot reach it"),
        ("grpc://localhost:7000", "other machines cannot reach it"),
        ("grpc://me.localhost.:7000", "other machines cannot reach it"),
        ("unix:///run/wool.sock", "other machines cannot reach it"),
        ("grpc+unix:///run/wool.sock", "such as grpc://192.0.2.10:7000"),
        ("grpc://[fe80::1%eth0]:7000", "a link-local address means nothing"),
        ("grpc://0.0.0.0:7000", "can be listened at, but not dialled"),
        ("grpc://[::]:7000", "can be listened at, but not dialled"),
        ("nonsense", "is not an address"),
    ],
)
async def test_addresses_that_are_not_worth_announcing(address: str, reason: str) -> None:
    discovery = ZeroconfDiscovery(Options())
    with pytest.raises(ConfigurationError, match=reason):
        async with discovery.announce(replace(WORKER, address=address)):
            pass


# Interfaces ------------------------------------------------------------------------------------


def test_all_interfaces_include_loopback() -> None:
    assert "127.0.0.1" in _interfaces.choose(Options())
    assert not _interfaces.only_loopback(["127.0.0.1", "10.0.0.1"])


@pytest.mark.parametrize("name", ["lo", "127.0.0.1"])
def test_an_interface_by_name_and_by_address(name: str) -> None:
    chosen = _interfaces.choose(Options(interfaces=(name, name)))
    assert chosen == ["127.0.0.1"]
    assert _interfaces.only_loopback(chosen)


def test_an_interface_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"interfaces: .* 'eth99', only .*127\.0\.0\.1"):
        _interfaces.choose(Options(interfaces=("lo", "eth99")))


@pytest.mark.parametrize(
    ("interfaces", "version", "host"),
    [
        ((), "both", "0.0.0.0"),
        ((), "v6", "::"),
        (("lan",), "both", "10.0.0.1"),
        (("lan",), "v6", "fd00::1"),
        (("fd00::1",), "both", "fd00::1"),
        (("lo",), "both", "127.0.0.1"),
        (("lo", "lan"), "both", "0.0.0.0"),
        (("lo", "six"), "both", "::"),
        (("six",), "both", "fd00::2"),
    ],
)
def test_where_workers_listen(
    interfaces: tuple[str, ...], version: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = [
        adapter("lo", "127.0.0.1", "::1"),
        adapter("lan", "fe80::1", "fd00::1", "10.0.0.1"),
        adapter("six", "fe80::2", "fd00::2"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    discovery = ZeroconfDiscovery(Options(interfaces=interfaces, ip_version=version))
    assert discovery.host == host
    with pytest.raises(ConfigurationError, match="'eth99'"):
        ZeroconfDiscovery(Options(interfaces=("eth99",)))


def adapter(name: str, *numbers: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP((n, 0, 1) if ":" in n else n, 64, name) for n in numbers]
    return ifaddr.Adapter(name, name, ips, 1)


# What a worker tells ---------------------------------------------------------------------------

words = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40)
workers = st.builds(
    WorkerInfo,
    id=words.filter(bool),
    address=st.sampled_from([WORKER.address, "ws://[fd00::1]:1/x", "unix:///a"]),
    tags=st.frozensets(words, max_size=5),
    host=words,
    pid=st.integers(0, 1 << 31),
    python=words,
    version=words,
    serializers=st.lists(words, max_size=3).map(tuple),
)


def description(
    worker: WorkerInfo = WORKER, namespace: str = "n", revision: int = 1
) -> Description:
    return Description(worker=worker, namespace=namespace, revision=revision, lease=30.0)


@given(workers, words, st.integers(0, 1 << 62))
def test_what_is_told_is_understood(worker: WorkerInfo, namespace: str, revision: int) -> None:
    told = description(worker, namespace, revision)
    try:
        records = _description.records(told)
    except ConfigurationError as error:
        assert "is the most" in str(error)
    else:
        # What arrives is no more than the text.
        arrived = AsyncServiceInfo(_description.TYPE, records.name, properties=records.text)
        assert _description.understood(arrived.properties) == told


@given(st.data())
def test_damaged_texts_do_no_harm(data: st.DataObject) -> None:
    records = _description.records(description())
    text = bytearray(records.text)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    cut = bytes(text[: data.draw(st.integers(0, len(text)))])
    arrived = AsyncServiceInfo(_description.TYPE, records.name, properties=cut)
    told = _description.understood(arrived.properties)
    if told is not None:
        assert repr(told).isprintable()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tags": {"x" * 1200}}, "1200 of them for its 1 tags, and 1200 is the most"),
        ({"tags": {f"tag number {i:04}" for i in range(80)}}, "for its 80 tags, and 1200 is the"),
        ({"tags": {"a\x1b[2Jb"}}, "its tag .* is not printable"),
        ({"host": "\udcff"}, "its host .* is not printable"),
    ],
)
async def test_too_much_to_tell(
    ours: ZeroconfDiscovery, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:7000 cannot be announced .*{reason}"):
        async with ours.announce(replace(WORKER, **change)):
            pass


@pytest.mark.parametrize(
    ("address", "server", "numbers", "port"),
    [
        ("grpc://10.0.0.1:7000", "wool-00c0ffee00c0ffee.local.", ["10.0.0.1"], 7000),
        ("ws://[fd00::1]:80/p", "wool-00c0ffee00c0ffee.local.", ["fd00::1"], 80),
        ("ws://worker.example:80/p", "worker.example.", [], 80),
        ("unix:///a", "wool-00c0ffee00c0ffee.local.", [], 0),
    ],
)
def test_records_agree_with_the_address(
    address: str, server: str, numbers: list[str], port: int
) -> None:
    records = _description.records(description(replace(WORKER, address=address)))
    assert records.name == "00c0ffee00c0ffee._wool._tcp.local."
    assert (records.server, records.parsed_addresses(), records.port) == (server, numbers, port)


def test_names_do_not_collide() -> None:
    idents = ["a", "A", "a.b", "a\\b", "ä", "Ä", "x" * 50, "x" * 51, "x" * 52, "\udcff"]
    names = {_description.instance(ident).lower() for ident in idents}
    assert len(names) == len(idents)
    assert all(len(name) <= 80 for name in names)


# Announcing and watching -----------------------------------------------------------------------


async def test_watches_of_a_process_share_what_is_known(
    ours: ZeroconfDiscovery, theirs: ZeroconfDiscovery
) -> None:
    gc.collect()
    before = open_sockets()  # of others
    async with ours.watch() as first:
        assert await upcoming(first) == Snapshot([])
        sockets = open_sockets() - before
        async with theirs.announce(WORKER):
            assert await upcoming(first) == Joined(WORKER)
            async with ours.watch() as second:
                assert await upcoming(second) == Snapshot([WORKER])
            assert open_sockets() - before == 2 * sockets
        assert await upcoming(first) == Left(WORKER)


async def test_updates_that_are_refused(ours: ZeroconfDiscovery) -> None:
    async with ours.watch() as events:
        assert await upcoming(events) == Snapshot([])
        async with ours.announce(WORKER) as announcement:
            assert await upcoming(events) == Joined(WORKER)
            with pytest.raises(ValueError, match="'00c0ffee00c0ffee' was announced, not 'x'"):
                await announcement.update(replace(WORKER, id="x"))
            with pytest.raises(ConfigurationError, match="1200 is the most"):
                await announcement.update(replace(WORKER, tags=frozenset({"x" * 1200})))
            await announcement.update(replace(WORKER, pid=7))
            assert await upcoming(events) == Changed(replace(WORKER, pid=7))
        with pytest.raises(RuntimeError, match="no more"):
            await announcement.update(WORKER)


# Strangers -------------------------------------------------------------------------------------


class Wire(RecordUpdateListener):
    """What a program without Wool hears, and can say."""

    def __init__(self) -> None:
        self.library = AsyncZeroconf(interfaces=["127.0.0.1"])
        self.heard: list[Any] = []
        self.news = asyncio.Event()

    async def __aenter__(self) -> Wire:
        await self.library.zeroconf.async_wait_for_start()
        self.library.zeroconf.async_add_listener(self, None)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.library.async_close()

    def async_update_records(self, zc: Any, now: float, records: list[Any]) -> None:
        self.heard += [record.new for record in records]
        self.news.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(30):
            while not any(map(condition, self.heard)):
                self.news.clear()
                await self.news.wait()

    async def register(self, name: str, text: bytes) -> None:
        """Tells of a service; in vain if it is garbage."""
        info = AsyncServiceInfo(
            _description.TYPE,
            f"{name}.{_description.TYPE}",
            port=1,
            properties=text,
            server=f"{name}.local.",
            parsed_addresses=["127.0.0.1"],
        )
        await (await self.library.async_register_service(info, cooperating_responders=True))

    def say(self, told: Description) -> None:
        """Tells of a worker, once."""
        library = self.library.zeroconf
        library.async_send(library.generate_service_broadcast(_description.records(told), None))


def say(packet: bytes) -> None:
    """Sends a packet to all programs on this machine that use multicast DNS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.sendto(packet, ("224.0.0.251", 5353))


async def test_what_strangers_say_is_ignored(ours: ZeroconfDiscovery, options: Options) -> None:
    good = _description.records(description(namespace=options.namespace)).text
    generator = random.Random(4)
    texts = {
        "empty": b"",
        "zero": b"\0",
        "cut": good[:-1],
        "other": b"\x09txtvers=1\x04ns=x",
        "newer": good.replace(b"txtvers=1", b"txtvers=2"),
        "impostor": good.replace(b"c0ffee", b"c0ff33"),  # named unlike its id
        "Ünï cödé": generator.randbytes(200),
    }
    async with Wire() as wire, ours.watch() as events:
        assert await upcoming(events) == Snapshot([])
        await asyncio.gather(*(wire.register(name, text) for name, text in texts.items()))
        for size in (0, 1, 11, 12, 13, 100, 1000, 9000):
            say(generator.randbytes(size))
            say(b"\0\0\x84\0\0\0\0\x05\0\0\0\0" + generator.randbytes(size))  # five answers
        async with ours.announce(WORKER):
            await nothing_but(events, WORKER)


async def test_answers_that_come_after_the_goodbye(
    ours: ZeroconfDiscovery, options: Options
) -> None:
    """An answer that was put off because of another is sent later, whatever has happened."""
    last = replace(WORKER, id="last")
    async with Wire() as wire, ours.watch() as events:
        assert await upcoming(events) == Snapshot([])
        async with ours.announce(WORKER):
            assert await upcoming(events) == Joined(WORKER)
        assert await upcoming(events) == Left(WORKER)
        wire.say(description(namespace=options.namespace))  # the ghost
        wire.say(description(last, namespace=options.namespace))
        await nothing_but(events, last)


async def test_a_worker_that_is_not_told_of_again_is_gone(
    ours: ZeroconfDiscovery, options: Options
) -> None:
    told = replace(description(namespace=options.namespace), lease=1.0)
    async with Wire() as wire, ours.watch() as events:
        assert await upcoming(events) == Snapshot([])
        wire.say(told)
        assert await upcoming(events) == Joined(WORKER)
        assert await upcoming(events) == Left(WORKER)
        wire.say(replace(told, revision=2))  # its network was cut
        assert await upcoming(events) == Joined(WORKER)


# Ends ------------------------------------------------------------------------------------------


async def test_one_who_is_cancelled_while_leaving_has_said_goodbye(
    ours: ZeroconfDiscovery, theirs: ZeroconfDiscovery
) -> None:
    leave = asyncio.Event()
    before = asyncio.all_tasks()

    async def use() -> None:
        async with ours.announce(WORKER):
            await leave.wait()

    async with theirs.watch() as events:
        assert await upcoming(events) == Snapshot([])
        task = asyncio.ensure_future(use())
        assert await upcoming(events) == Joined(WORKER)
        leave.set()
        await asyncio.sleep(0)
        task.cancel()
        assert await upcoming(events) == Left(WORKER)
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
