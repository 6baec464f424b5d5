"""`wool token`: makes the secret of a cluster."""

from __future__ import annotations

import click

from wool._security import tokens


@click.command()
def command() -> None:
    """Print a new token of 256 random bits.

    Give the same one to all workers and callers of a cluster, as the environment variable
    WOOL_TOKEN or in a file that WOOL_TOKEN_FILE names:

        umask 077; wool token > token
    """
    click.echo(tokens.generate())
