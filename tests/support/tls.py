"""TLS with certificates of a test's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import trustme

from wool._security.tls import Channel
from wool.abc import Pem


@dataclass
class GivenTls(Channel):
    """TLS of one side: what it shows, and whom it trusts."""

    pem: Pem
    verify: bool = True
    server_name: str | None = None
    asks_client: bool = False

    def server_pem(self) -> Pem:
        return self.pem if self.asks_client else replace(self.pem, authorities=None)

    def client_pem(self) -> Pem:
        return self.pem


def given(
    shows: trustme.LeafCert | None = None, trusts: trustme.CA | None = None, **more: Any
) -> GivenTls:
    pem = Pem(
        certificate=shows and b"".join(part.bytes() for part in shows.cert_chain_pems),
        key=shows and shows.private_key_pem.bytes(),
        authorities=trusts and trusts.cert_pem.bytes(),
    )
    return GivenTls(pem, **more)
