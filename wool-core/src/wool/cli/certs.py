"""`wool token` and `wool certs`: the secret of a cluster, or a small certificate authority."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from wool._security import tokens

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@click.command()
def token() -> None:
    """Print a new token of 256 random bits.

    Give the same one to all workers and callers of a cluster, as the environment variable
    WOOL_TOKEN or in a file that WOOL_TOKEN_FILE names:

        umask 077; wool token > token
    """
    click.echo(tokens.generate())


@click.group()
def certs() -> None:
    """Make certificates for mutual TLS.

    First an authority, once; then a certificate for each machine:

    \b
        wool certs authority --folder certs
        wool certs issue worker1 worker1.example 10.0.0.5 --folder certs

    A machine needs ca.pem, its own certificate and its own key; ca-key.pem stays where it is, for
    whoever has it can let anybody in.
    """  # noqa: D301


_DAYS = click.IntRange(1, 36500)
_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("certs"),
    show_default=True,
    help="Where the files are.",
)


@certs.command()
@_folder
@click.option("--days", type=_DAYS, default=3650, show_default=True, help="How long it is valid.")
def authority(folder: Path, days: int) -> None:
    """Make an authority: ca.pem and ca-key.pem."""
    from wool._security.certificates import make_authority  # it needs a library that is large

    make_authority(folder, days)
    click.echo(f"{folder / 'ca.pem'}      for everyone")
    click.echo(f"{folder / 'ca-key.pem'}  secret: signs certificates")


@certs.command()
@click.argument("name")
@click.argument("hosts", nargs=-1)
@_folder
@click.option("--days", type=_DAYS, default=365, show_default=True, help="How long it is valid.")
def issue(name: str, hosts: tuple[str, ...], folder: Path, days: int) -> None:
    """Make NAME.pem and NAME-key.pem for a machine.

    HOSTS are the names and addresses under which others reach it; by default the name of this
    machine. The loopback addresses are always among them.
    """
    from wool._security.certificates import make_certificate  # as above

    names = dict.fromkeys([*(hosts or (socket.gethostname(),)), *LOOPBACK])
    make_certificate(folder, name, list(names), days)
    click.echo(f"{folder / f'{name}.pem'}      for {', '.join(names)}")
    click.echo(f"{folder / f'{name}-key.pem'}  secret: its key")
