"""`wool top`: workers and calls, live, in a terminal or a browser."""

from __future__ import annotations

import shlex
import sys

import click

from wool.cli.common import Files, Where, credential_options, discovery_options, seconds_option
from wool.cli.ps import question_of


@click.command("top")
@click.argument("programs", nargs=-1, metavar="[PROGRAM]...")
@discovery_options("Show the workers that this finds, in place of those of this machine and user.")
@credential_options
@seconds_option("--interval", "Between two looks.", least=0.1, default=1.0, show_default=True)
@click.option("--read-only", is_flag=True, help="Neither cancel calls nor drain workers.")
@click.option("--web", is_flag=True, help="Serve it to browsers of this machine, read-only.")
@click.option(
    "--port", default=8000, type=click.IntRange(1, 65535), show_default=True, help="For --web."
)
def top(
    programs: tuple[str, ...],
    where: Where,
    files: Files,
    interval: float,
    read_only: bool,
    web: bool,
    port: int,
) -> None:
    """Show workers and calls, live.

    By default these are the workers of this user on this machine, whoever has started them. PROGRAM
    is the number of a process, or a part of the path of its script: only workers that it is, or
    that it calls, are shown.
    """
    try:
        from wool.cli.dashboard import Dashboard
    except ModuleNotFoundError as error:
        missing = 'wool top needs Textual: pip install "wool-core[top]"'
        raise click.ClickException(missing) from error
    question = question_of(where, files, 3.0)
    if web:
        _serve(port)
    else:
        Dashboard(question, programs, interval, read_only=read_only).run()


def _serve(port: int) -> None:
    """Serves the same command to browsers, which may not act: any user of the machine can look."""
    from textual_serve.server import Server

    given = [word for word in sys.argv[1:] if word != "--web"]
    command = [sys.executable, "-m", "wool.cli", *given, "--read-only"]
    # The shell that runs it is not to stand between the two: who is left alone ends.
    Server(f"exec {shlex.join(command)}", host="127.0.0.1", port=port, title="wool top").serve()
