"""TLS as the credentials say, or no connection."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wool._security import contexts
from wool._security.certificates import make_authority, make_certificate, throwaway
from wool._security.channels import MutualChannel, ThrowawayChannel
from wool._security.files import Files
from wool.abc import Connection, ConnectionLost, Pem, Tls
from wool.testing._kit import remedy
from wool.testing._transport.base import Base, End, Place, Site
from wool.testing._transport.listening import answered, echo, failing, host_of, outcome

NAME = "worker.example"


def throwaway_tls() -> Tls:
    """Returns TLS with a certificate made now, which whoever dials takes: for `credentials`."""
    return ThrowawayChannel(throwaway())


@dataclass
class GivenTls(Tls):
    """TLS of one side, or of both."""

    pem: Pem
    server_name: str | None = NAME
    asks_client: bool = False
    verify: bool = field(default=True, init=False)

    def server_context(self) -> ssl.SSLContext:
        return contexts.server_context(self.server_pem())

    def client_context(self) -> ssl.SSLContext:
        return contexts.client_context(self.client_pem(), verify=True)

    def server_pem(self) -> Pem:
        authorities = self.pem.authorities if self.asks_client else None
        return Pem(certificate=self.pem.certificate, key=self.pem.key, authorities=authorities)

    def client_pem(self) -> Pem:
        return self.pem


class Authority:
    """An authority in a new folder, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_authority(folder, 2)
        self.trusted: Pem = Pem(authorities=(folder / "ca.pem").read_bytes())

    def certificate(self, *hosts: str, days: int = 2) -> Pem:
        """A certificate for the hosts."""
        name = f"n{len(list(self.folder.iterdir()))}"
        make_certificate(self.folder, name, hosts, days)
        return Pem(
            certificate=(self.folder / f"{name}.pem").read_bytes(),
            key=(self.folder / f"{name}-key.pem").read_bytes(),
            authorities=self.trusted.authorities,
        )


async def unheard(site: Site, place: Place, credentials: Tls | None) -> None:
    """Checks that nobody gets in at a place with these credentials."""
    met = await outcome(site.dial_with(credentials, place.address, timeout=2.0))
    if isinstance(met, End):  # this side may have believed in it for a moment
        with contextlib.suppress(ConnectionLost):
            await met.send(b"let me in" * 100)
        assert await met.rest() == []
    assert place.accepted.empty(), "the handler has got a connection that must not be"


class Security(Base):
    """Part of `TransportSuite`: for suites that have credentials."""

    @pytest.fixture
    def ours(self, tmp_path: Path) -> Authority:
        """The authority that is trusted."""
        if self.credentials() is None:
            pytest.skip("the suite has no credentials")
        return Authority(tmp_path / "ours")

    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Authority:
        """Another one."""
        return Authority(tmp_path / "theirs")

    @remedy("Return the certificate of the peer in DER, as it was in the handshake.")
    async def test_the_certificate(self, site: Site, ours: Authority) -> None:
        """`extra("certificate")` is what the listener has, for whoever has dialled."""
        credentials = throwaway_tls()
        certificate = credentials.server_pem().certificate
        assert certificate is not None
        place = await site.listen_at(site.address(), credentials)
        place.serve(echo)
        end = await site.dial_with(ThrowawayChannel(), place.address)
        await answered(end)
        told = end.connection.extra("certificate")
        assert told == ssl.PEM_cert_to_DER_cert(certificate.decode())

    @remedy("Return the default from `extra` for certificates of connections in clear.")
    async def test_without_credentials(self, site: Site, ours: Authority) -> None:
        """Without credentials there is no certificate."""
        place = await site.listen_at(site.address(), None)
        place.serve(echo)
        end = await site.dial_with(None, place.address)
        await answered(end)
        assert end.connection.extra("certificate") is None

    @remedy("Never fall back: with credentials there is TLS, or no connection.")
    async def test_a_listener_without_tls(self, site: Site, ours: Authority) -> None:
        """A listener without TLS is not talked to in clear when there are credentials."""
        heard: list[bytes] = []

        async def handle(connection: Connection) -> None:
            while True:
                heard.extend(map(bytes, await connection.receive()))

        place = await site.listen_at(site.address(), None)
        place.serve(handle)
        await failing(site.dial_with(site.credentials, place.address, timeout=2.0))
        assert heard == []

    @remedy("Listen with TLS only, and start no handler before the handshake is done.")
    async def test_a_dialler_without_tls(self, site: Site, ours: Authority) -> None:
        """Who dials without TLS does not get in where there are credentials."""
        place = await site.listen()
        await unheard(site, place, None)
        await site.link(place)

    @remedy("Verify `server_name` if there is one, else the host.")
    async def test_listeners_that_are_trusted(self, site: Site, ours: Authority) -> None:
        """Listeners are trusted by the name that is asked for, or by the host in the address."""
        host = await self._host(site)
        for name, hosts in ((NAME, [NAME]), (None, [host])):
            pem = ours.certificate(*hosts)
            place = await site.listen_at(site.address(), GivenTls(pem, server_name=name))
            place.serve(echo)
            end = await site.dial_with(GivenTls(ours.trusted, server_name=name), place.address)
            await answered(end)

    @pytest.mark.parametrize("flaw", ["name", "host", "authority", "age", "self-signed"])
    @remedy("Verify authority, name and dates as the contexts of `Tls` do; the reason is 'tls'.")
    async def test_listeners_that_are_not_trusted(
        self, site: Site, ours: Authority, theirs: Authority, flaw: str
    ) -> None:
        """A listener that is not trusted is no connection; the reason is "tls"."""
        pem = {
            "name": lambda: ours.certificate("other.example", "localhost", "127.0.0.1"),
            "host": lambda: ours.certificate("other.example"),
            "authority": lambda: theirs.certificate(NAME),
            "age": lambda: ours.certificate(NAME, days=0),
            "self-signed": lambda: throwaway().pem,
        }[flaw]()
        place = await site.listen_at(site.address(), GivenTls(pem))
        place.serve()
        asked = GivenTls(ours.trusted, server_name=None if flaw == "host" else NAME)
        error = await failing(site.dial_with(asked, place.address))
        assert error.reason == "tls", f"reason is {error.reason!r}: {error}"
        assert place.accepted.empty(), "the handler has got a connection that must not be"

    @remedy("Use `server_context` or `asks_client` of the credentials; start no handler before.")
    async def test_whoever_dials_has_to_show_a_certificate(
        self, site: Site, ours: Authority, theirs: Authority
    ) -> None:
        """If the listener asks, who dials must show a certificate that it trusts."""
        place = await site.listen_at(
            site.address(), GivenTls(ours.certificate(NAME), asks_client=True)
        )
        place.serve()
        foreign = theirs.certificate(NAME)
        stranger = Pem(
            certificate=foreign.certificate, key=foreign.key, authorities=ours.trusted.authorities
        )
        for pem in (ours.trusted, stranger):
            await unheard(site, place, GivenTls(pem))
        end = await site.dial_with(GivenTls(ours.certificate("caller.example")), place.address)
        await end.send(b"let me in")
        assert await (await place.next()).read(1) == [b"let me in"]

    @remedy("Ask the credentials anew for each connection, or use the context that does so.")
    async def test_certificates_that_are_replaced(self, site: Site, ours: Authority) -> None:
        """Certificates that are replaced hold for new connections; those that are open stay."""
        pem, folder = ours.certificate(NAME), ours.folder
        paths = [folder / "used-ca.pem", folder / "used.pem", folder / "used-key.pem"]

        def use(pem: Pem) -> bytes:
            for path, text in zip(paths, (pem.authorities, pem.certificate, pem.key), strict=True):
                assert text is not None
                path.write_bytes(text)
            assert pem.certificate is not None
            return ssl.PEM_cert_to_DER_cert(pem.certificate.decode())

        told = use(pem)
        channel = MutualChannel(Files(*map(str, paths)), NAME)
        place = await site.listen_at(site.address(), channel)
        place.serve(echo)
        old = await site.dial_with(channel, place.address)
        await answered(old)
        assert old.connection.extra("certificate") == told
        told = use(ours.certificate(NAME, "another.example"))
        new = await site.dial_with(channel, place.address)
        await answered(new)
        assert new.connection.extra("certificate") == told
        await answered(old)

    async def _host(self, site: Site) -> str:
        """The host that addresses name."""
        address = (await site.listen(serve=False)).address
        host = host_of(address)
        assert host is not None, f"{address} is not the address of a network"
        return "localhost" if "://localhost" in address else str(host)
