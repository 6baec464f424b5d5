"""TLS contexts from PEM texts in memory, which Python's `ssl` takes from files only."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Generator

from wool.abc import Pem


def server_context(pem: Pem) -> ssl.SSLContext:
    """Returns a context to listen with; it demands a certificate if there are authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, pem)
    if pem.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # Who resumes a session shows no certificate, so nobody would see that it has expired.
        context.num_tickets = 0
    return context


def client_context(pem: Pem, *, verify: bool) -> ssl.SSLContext:
    """Returns a context to dial with; without `verify` it takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if verify else ssl.TLSVersion.TLSv1_3
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif pem.authorities is None:
        context.load_default_certs()
    _load(context, pem)
    return context


def _load(context: ssl.SSLContext, pem: Pem) -> None:
    if pem.authorities is not None:
        context.load_verify_locations(cadata=pem.authorities.decode("ascii"))
    if pem.certificate is not None and pem.key is not None:
        with _file(pem.certificate + b"\n" + pem.key) as path:
            context.load_cert_chain(path, password="")  # without it, OpenSSL asks on the terminal


@contextlib.contextmanager
def _file(data: bytes) -> Generator[str]:
    """A file for a moment, where possible in memory, so that no key is ever on a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("wool")
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="wool-tls-") as folder:  # for its user alone
        path = os.path.join(folder, "pem")
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        yield path
